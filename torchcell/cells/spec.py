"""``CellsSpec``: what a model of single cells knows about its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from torchcell.cells import metrics  # noqa: F401  whoever reads a spec knows how its targets are scored
from torchcell.core.spec import INDICES, Spec


@dataclass(frozen=True)
class TrainedPerturbations:
    """What was perturbed in training.

    Attributes:
        genes: Names, sorted.
        sizes: How many genes a condition perturbs, each number once, sorted.
    """

    genes: tuple[str, ...] = field(metadata=INDICES)
    sizes: tuple[int, ...] = field(metadata=INDICES)


@dataclass(frozen=True, eq=False)
class NetworkGenes:
    """Genes outside the vocabulary that the networks know, which a request may perturb.

    Attributes:
        genes: Their names.
        values: Their features, the columns being those of the spec's gene features, float32 [n, F].
    """

    genes: tuple[str, ...] = field(metadata=INDICES)
    values: Float[Tensor, "n F"]


@dataclass(frozen=True)
class PhaseSources:
    """Where the genes that a phase of a curriculum adds came from.

    Attributes:
        name: The sources that lead among them; empty where none is known.
        sources: All sources with their number of genes, largest first.
    """

    name: str
    sources: Mapping[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class CellsSpec(Spec):
    """Control cells and perturbed genes in, mean expression of the perturbed cells out; see ``Spec`` for the rest.

    ``outputs`` are the G measured genes; ``genes`` are these, then the genes that are perturbed only. All expression
    is log-normalized. A batch is a ``torchcell.cells.batch.CellSetBatch``.

    Attributes:
        groups: Names of the groups of covariates of training; in a request those of the request.
        change_center: Mean change of the training conditions from their input control, float32 [G].
        change_scale: Standard deviation of these changes, float32 [G].
        gene_center: Mean over all control cells of training, float32 [G].
        gene_scale: Root of the cells' variance plus the mean squared change, float32 [G].
        covariates: Names of the covariates that a group has values of.
        control_words: What the data call cells without a perturbation.
        trained_perturbations: What was perturbed in training.
        input_scale: ``counts`` where the data were given as counts, else ``lognorm``.
        library: Counts a cell was scaled to before the logarithm; none: it was not.
        pseudobulk: Whether training sees means of conditions in place of cells.
        set_size: Perturbed cells S of a training set.
        input_cells: Control cells C that a set is predicted from.
        eval_sets: A prediction averages over so many sets of control cells.
        network_genes: Genes that the networks know beside ``genes``; none without features.
        neighbors: Positions of the genes that each measured gene attends to, -1 where it has fewer, int64 [G, K]; none
            without networks.
        gene_order: Positions of the measured genes, those that respond most first, int64 [G]; none where ``outputs``
            stand in the order in which they were selected.
        phases: Of the curriculum, what each adds; empty without one.
    """

    WORDS: ClassVar[str] = "single cells"

    groups: tuple[str, ...] = field(metadata=INDICES)
    change_center: Float[Tensor, " G"]
    change_scale: Float[Tensor, " G"]
    gene_center: Float[Tensor, " G"]
    gene_scale: Float[Tensor, " G"]
    covariates: tuple[str, ...] = field(metadata=INDICES)
    control_words: tuple[str, ...] = field(metadata=INDICES)
    trained_perturbations: TrainedPerturbations = field(metadata=INDICES)
    input_scale: Literal["counts", "lognorm"] = field(metadata=INDICES)
    library: float | None = field(metadata=INDICES)
    pseudobulk: bool = field(metadata=INDICES)
    set_size: int = field(metadata=INDICES)
    input_cells: int = field(metadata=INDICES)
    eval_sets: int = field(metadata=INDICES)
    network_genes: NetworkGenes | None = field(default=None, metadata=INDICES)
    neighbors: Int[Tensor, "G K"] | None = None
    gene_order: Int[Tensor, " G"] | None = None
    phases: tuple[PhaseSources, ...] = ()
