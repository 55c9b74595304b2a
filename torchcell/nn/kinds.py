"""Rows of the kinds of perturbation that a model was trained with, for tables of one row a kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from torchcell.data.errors import InputError, some
from torchcell.data.screen import KINDS


class KindRows(nn.Module):
    """Number the kinds as records do, and get them back as rows of a table that has only the trained ones.

    Training data hold no kind but the trained ones, so only evaluation looks, which makes a GPU wait.

    Args:
        kinds: Names of the trained kinds, in the order of the rows; ``Spec.kinds``.

    Shapes:
        kind_M [M], positions in ``torchcell.data.screen.KINDS`` -> [M], positions in ``kinds``.

    Raises:
        InputError: A name that is no kind of perturbation; in evaluation mode, a kind that was not trained.
    """

    row_K: Tensor

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"no kind of perturbation is called {some(unknown)}; choose from {list(KINDS)}")
        self.kinds = tuple(kinds)
        rows = [self.kinds.index(kind) if kind in self.kinds else -1 for kind in KINDS]
        # Not in the state: it follows from the names, which the spec keeps.
        self.register_buffer("row_K", torch.tensor(rows), persistent=False)

    def forward(self, kind_M: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
        """The row of each kind."""
        row_M = self.row_K[kind_M]
        if not self.training and (row_M < 0).any():
            unseen = [KINDS[number] for number in kind_M[row_M < 0].unique().tolist()]
            raise InputError(
                f"kinds of perturbation that were not in training: {some(unseen)}; the model knows "
                f"{some(self.kinds)}. Leave these sets out, or train with such sets"
            )
        return row_M

    def extra_repr(self) -> str:
        """The trained kinds."""
        return ", ".join(self.kinds)
