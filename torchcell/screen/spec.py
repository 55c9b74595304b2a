"""``ScreenSpec``: what a model of screens knows about its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from torch import Tensor

from torchcell.core.spec import INDICES, Spec
from torchcell.io.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class ScreenSpec(Spec):
    """Sets of perturbed genes in, one scalar a phenotype out; see ``Spec`` for what all tasks have.

    ``genes`` are the N genes of the graph, or without a graph the screen's; ``outputs`` are the T phenotypes. A batch
    is a ``torchcell.screen.datamodule.PerturbationBatch``.

    Attributes:
        trained_genes: Positions in ``genes`` of the genes that training samples name, sorted, int64 [K].
        trained_sizes: How many genes a training sample perturbs, each number once, sorted.
        trained_levels: Least and largest dose or expression level of training, in the file's unit; empty where no
            sample has one.
        hops: What a model that takes genes out of the graph may see of it: the nodes within so many hops of the
            perturbed ones; none: all of it.

    Example:
        >>> import torch
        >>> spec = ScreenSpec(
        ...     "regression", ("fitness",), ("A", "B"), ("absent",), torch.zeros(1), torch.ones(1), None, "hash",
        ...     trained_genes=torch.tensor([0, 1]), trained_sizes=(1, 2),
        ... )
        >>> spec.outputs, len(spec.genes), spec.trained_sizes
        (('fitness',), 2, (1, 2))
    """

    WORDS: ClassVar[str] = "perturbation screens"

    trained_genes: Int[Tensor, " K"]
    trained_sizes: tuple[int, ...] = field(metadata=INDICES)
    trained_levels: tuple[float, ...] = field(default=(), metadata=INDICES)
    hops: int | None = field(default=None, metadata=INDICES)

    def check_model(self, model: type) -> None:
        """Also refuse a model that looks at the whole graph where only a part is to be seen."""
        super().check_model(model)
        if self.hops is not None and not getattr(model, "reads_hops", False):
            raise InputError(f"data.hops={self.hops}: {model.__name__} does not look at parts; set data.hops=null")

    def gene_facts(self) -> dict[str, np.ndarray]:
        """``trained``: whether training samples name the gene."""
        return {"trained": np.isin(np.arange(len(self.genes)), self.trained_genes.cpu().numpy())}
