"""Options of ``CellGraphTransformer``, one class a concern; in the config ``model.encoder`` and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchcell.core.options import a_rate, at_least, check_options, one_of
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.common import ImputationOptions
from torchcell.screen.spec import ScreenSpec


@dataclass(frozen=True)
class EncoderOptions:
    """Attention over CLS and all genes.

    Attributes:
        dim: Width D of tokens.
        layers: Attention layers; 0 leaves the tokens as they are.
        heads: Of each layer, dim / heads at least 16.
        expansion: Width of a layer's inner network in units of ``dim``.
        dropout: Rate in the layers, of the members' tokens and in the last MLP.
        gradient_checkpointing: Keep only the layers' inputs, and compute them again in the backward pass.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 4
    expansion: int = 2
    dropout: float = 0.1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(
            "model.encoder",
            self,
            dim=at_least(1),
            layers=at_least(0),
            heads=at_least(1),
            expansion=at_least(1),
            dropout=a_rate(),
        )


@dataclass(frozen=True)
class GraphLossOptions:
    """The graph regularization loss: attention heads that are drawn towards networks, see ``GraphLoss``.

    Attributes:
        weight: Lambda, one number or relation -> number; 0 leaves the loss out.
        form: ``kl``, the divergence over all pairs; ``bce``, a cross-entropy on sampled edges.
        rows: Genes drawn a step and relation, for ``kl``; none takes all.
        negatives: Genes drawn a step that stand for a row's non-neighbors; none takes all. Needs ``rows``.
        head_assignments: Relation -> [layer, head] pairs, from 0; none assigns each relation among genes to one head.
    """

    weight: float | int | Mapping[str, float | int] = 1.0
    form: str = "kl"
    rows: int | None = None
    negatives: int | None = None
    head_assignments: Mapping[str, Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        """Check the values; relations are checked against the graph by ``assign_heads``."""
        check_options(
            "model.graph_loss",
            self,
            form=one_of("kl", "bce"),
            rows=at_least(1, optional=True),
            negatives=at_least(1, optional=True),
        )
        if self.negatives is not None and self.rows is None:
            raise InputError(
                f"model.graph_loss.negatives={self.negatives} needs model.graph_loss.rows: give both or none"
            )
        if self.form == "bce" and self.rows is not None:
            raise InputError(f"model.graph_loss.rows={self.rows} is for form=kl: bce samples edges")

    def networks(self, graph: CellGraph) -> CellGraph:
        """The networks that the heads are drawn towards: the cell's own."""
        return graph


@dataclass(frozen=True)
class EmbeddingOptions:
    """What is learned for each gene by name.

    Attributes:
        free: Whether tokens have a free embedding a gene.
        decay: Weight of the loss ``embedding``, the members' mean squared embedding length.
        imputation: Of genes without training samples.
    """

    free: bool = True
    decay: float = 0.0
    imputation: ImputationOptions = ImputationOptions()

    def __post_init__(self) -> None:
        """Check the values."""
        check_options("model.embedding", self, decay=at_least(0))
        if self.imputation.untrained_rate and not self.imputation.neighbors:
            raise InputError(
                f"model.embedding.imputation.untrained_rate={self.imputation.untrained_rate} needs "
                "model.embedding.imputation.neighbors; set both to 0 or none"
            )


@dataclass(frozen=True)
class PairOptions:
    """Free factors f of each gene, whose products score the pairs of a set; see ``PairTable``.

    Attributes:
        width: Of the factors; 0 leaves them out.
        start: ``random``, or ``least_squares``: f starts as the factors of the training pairs' table;
            a model that goes on from a checkpoint keeps those it has.
        penalty: Ridge penalty of that start.
        decay: Weight of the loss ``pairs``, the members' mean squared length of f.
        trained: Whether f moves from its start.
    """

    width: int = 0
    start: str = "random"
    penalty: float = 8.0
    decay: float = 0.0
    trained: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(
            "model.readout.pairs",
            self,
            width=at_least(0),
            start=one_of("random", "least_squares"),
            penalty=at_least(0),
            decay=at_least(0),
        )
        if self.start == "least_squares" and not self.penalty:
            raise InputError("model.readout.pairs.start=least_squares needs model.readout.pairs.penalty above 0")

    def check(self, spec: ScreenSpec) -> None:
        """Check the least-squares start against the data.

        Raises:
            InputError: A width that the phenotypes do not divide; several kinds of perturbation.
        """
        if self.start != "least_squares":
            return
        step = 2 * len(spec.outputs)
        if self.width % step or not self.width:
            raise InputError(
                "model.readout.pairs.start=least_squares needs model.readout.pairs.width, a multiple of "
                f"{step}, not {self.width}"
            )
        if len(spec.kinds) > 1:
            raise InputError(
                f"model.readout.pairs.start=least_squares has one value a pair, and the data has kinds "
                f"{list(spec.kinds)}; set model.readout.pairs.start=random"
            )


@dataclass(frozen=True)
class ReadoutOptions:
    """How a perturbation is read from the encoded cell.

    Attributes:
        pooling: Of the query q_S: ``mean``, ``sum`` or ``hyper_sagnn``.
        levels: Read the members' levels.
        score: Of the members, ``product`` or ``difference``, see ``HyperSAGNN``; none leaves it out.
        pairs: Free factors beside the encoded cell.
    """

    pooling: str = "mean"
    levels: bool = False
    score: str | None = "product"
    pairs: PairOptions = PairOptions()

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(
            "model.readout",
            self,
            pooling=one_of("mean", "sum", "hyper_sagnn"),
            score=one_of("product", "difference", None),
        )
