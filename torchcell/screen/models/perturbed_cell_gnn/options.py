"""Options of ``PerturbedCellGNN``, one class a concern; in the config ``model.encoder`` and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchcell.core.options import a_rate, at_least, check_options, one_of
from torchcell.io.errors import InputError
from torchcell.screen.models.common import EmbeddingOptions, ImputationOptions
from torchcell.screen.models.perturbed_cell_gnn.layers import MERGES, NORMS
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import STRATEGIES

PARTS = ("local", "global")


@dataclass(frozen=True)
class EncoderOptions:
    """Message passing over the cell, with and without the deleted genes.

    Attributes:
        dim: Width of all node features.
        layers: Message-passing layers.
        attention_heads: Of HGT and of the local part of the readout.
        norm: ``layer`` or ``none``; ``batch`` and ``graph`` with ``strategy=tile`` only.
        residual: Each layer adds its input to its output; HGT has a gate for that.
        linear_readout: The last layer is linear, so that its sum over nodes needs no edges; never HGT's.
        strategy: To compute the perturbed cell, ``auto``, ``tile``, ``hybrid`` or ``delta``: the same numbers.
    """

    dim: int = 32
    layers: int = 2
    attention_heads: int = 2
    norm: str = "layer"
    residual: bool = True
    linear_readout: bool = False
    strategy: str = "auto"

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(
            "model.encoder",
            self,
            dim=at_least(1),
            layers=at_least(1),
            attention_heads=at_least(1),
            norm=one_of(*NORMS),
            strategy=one_of(*STRATEGIES),
        )


@dataclass(frozen=True)
class MessageOptions:
    """What a node receives from its neighbors.

    Attributes:
        relations: Of the graph, all by default; hops are counted along these.
        aggregation: ``rgcn``, ``sage``, ``gin`` or ``hgt``.
        merge: Of the relations: ``sum``, ``mean``, ``attention`` or ``pairwise``; HGT has its own.
        degree: Messages are added up (``sum``) or divided by the ``wild_type`` degree or by the ``true`` one, among
            the nodes that are left.
    """

    relations: Sequence[str] | None = None
    aggregation: str = "rgcn"
    merge: str = "sum"
    degree: str = "wild_type"

    def __post_init__(self) -> None:
        """Check the values; relations are checked against the graph by the model."""
        check_options(
            "model.messages",
            self,
            aggregation=one_of("rgcn", "sage", "gin", "hgt"),
            merge=one_of(*MERGES),
            degree=one_of("sum", "wild_type", "true"),
        )


@dataclass(frozen=True)
class NodeEmbeddingOptions(EmbeddingOptions):
    """Input features of the nodes, besides what ``EmbeddingOptions`` has.

    Attributes:
        spectral: Width of the fixed features from each relation's spectrum; 0 leaves them out.
        imputation: Of genes that no training set names; its ``untrained_rate`` is the rate of the nodes that lose
            their free embedding in a training step, so that the model learns to do without it.
    """

    spectral: int = 0
    imputation: ImputationOptions = ImputationOptions()

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_options("model.embedding", self, spectral=at_least(0))


@dataclass(frozen=True)
class ReadoutOptions:
    """How a prediction is made of the cells before and after.

    Attributes:
        parts: ``local``, the members' embeddings in the wild type; ``global``, what the cell loses; or both.
        score: Of the local part, ``product`` or ``difference``, see ``HyperSAGNN``.
        dropout: Rate of the parts' inputs dropped in training.
    """

    parts: Sequence[str] = PARTS
    score: str = "product"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_options("model.readout", self, score=one_of("product", "difference"), dropout=a_rate())
        if not self.parts or set(self.parts) - set(PARTS) or len(set(self.parts)) < len(self.parts):
            raise InputError(f"model.readout.parts={list(self.parts)}: choose local, global or both, each once")
