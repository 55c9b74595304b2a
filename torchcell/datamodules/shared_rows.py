"""Rows of a table that samples share, of which a batch carries the positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SharedRows:
    """For each of B samples a row of a table; nothing is copied before it is read, and then each part of it alone.

    Attributes:
        table: R rows of K parts over G genes [R, K, G].
        row: Of each sample, int64 [B].
    """

    table: Float[Tensor, "R K G"]
    row: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def nbytes(self) -> int:
        """Bytes that go to another device: positions, and each row once."""
        return self.row.nbytes + len(self.row.unique()) * self.table[0].nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The rows on another device, each of them once."""
        asked, here = torch.device(device), self.table.device
        if asked.type == here.type and asked.index in (None, here.index):
            return self
        distinct, row = self.row.unique(return_inverse=True)
        table = self.table.index_select(0, distinct)
        return type(self)(table.to(device, non_blocking=non_blocking), row.to(device, non_blocking=non_blocking))

    def narrow(self, start: int, stop: int) -> Self:
        """Samples ``start`` to ``stop``, a view."""
        return replace(self, row=self.row[start:stop])

    def part(self, k: int) -> Float[Tensor, "B G"]:
        """One part of each sample's row."""
        return self.table[:, k].index_select(0, self.row)
