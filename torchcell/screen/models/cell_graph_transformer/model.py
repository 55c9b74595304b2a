"""``CellGraphTransformer``: attention over CLS and all genes, some heads drawn towards the networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import randomize
from torchcell.io.errors import InputError
from torchcell.nn.gene_embedding import ColdStart, FeatureProjection, GeneVectors
from torchcell.report.sections import Section
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.cell_graph_transformer.attention import (
    CellEncoder,
    EncodedCell,
    HardMask,
    TransformerLayer,
)
from torchcell.screen.models.cell_graph_transformer.graph_prior import GraphTerms, graph_term_section, graph_ties
from torchcell.screen.models.cell_graph_transformer.heads import PairTable, PerturbationHead
from torchcell.screen.models.common import HyperSAGNN, KindRows
from torchcell.screen.spec import ScreenSpec

if TYPE_CHECKING:
    import pandas as pd


CHOICES: dict[str, tuple[Any, ...]] = {
    "networks": ("real", "random"),
    "pair_start": ("random", "least_squares"),
    "score": ("product", "difference", None),
}


def check_choices(
    spec: ScreenSpec,
    tokens: bool,
    choices: Mapping[str, Any],
    sizes: Mapping[str, float | int],
    cold_share: float | int,
) -> None:
    """Check the arguments of ``CellGraphTransformer`` against each other and the data.

    Args:
        spec: Of the data.
        tokens: Whether there is anything to make tokens of.
        choices: Words, see ``CHOICES``.
        sizes: Numbers that must not be negative; ``pair_width`` and ``cold_start`` among them.
        cold_share: Share of the genes treated as untrained.

    Raises:
        InputError: What is wrong, and what to set.
    """
    for name, word in choices.items():
        if word not in CHOICES[name]:
            raise InputError(f"model.{name}={word!r}: choose from {list(CHOICES[name])}")
    for name, value in sizes.items():
        if not value >= 0:
            raise InputError(f"model.{name}={value}: it must be 0 or more")
    if not 0 <= cold_share <= 1:
        raise InputError(f"model.cold_share={cold_share}: it is a share, from 0 to 1")
    if not tokens:
        raise InputError("there is nothing to make tokens of: give data.features, or set model.free_embedding=true")
    if cold_share and not sizes["cold_start"]:
        raise InputError(f"model.cold_share={cold_share} needs model.cold_start; set both to 0 or none")
    if choices["pair_start"] != "least_squares":
        return
    if not sizes["pair_penalty"] > 0:
        raise InputError("model.pair_start=least_squares needs model.pair_penalty above 0")
    step, width = 2 * len(spec.outputs), sizes["pair_width"]
    if width % step or not width:
        raise InputError(f"model.pair_start=least_squares needs model.pair_width, a multiple of {step}, not {width}")
    if len(spec.kinds) > 1:
        raise InputError(
            f"model.pair_start=least_squares has one value a pair, and the data has kinds {list(spec.kinds)}; "
            "set model.pair_start=random"
        )


class _Step(NamedTuple):
    """What one encoding of the wild type gives: the cell, and the pair factors of all genes if there are any."""

    cell: EncodedCell
    pair_NP: Tensor | None


class CellGraphTransformer(WildTypeModel):
    r"""Attention over CLS and all genes of the wild type, and heads that look at the cell from a perturbed set.

    .. math::
        [h_{CLS}, H] = \mathrm{encoder}(x_1 \dots x_N), \quad
        y_S = \mathrm{MLP}([h_{CLS}, z_S]) + \mathrm{members}(h_S) + \mathrm{pairs}(f_S)

    with z_S of ``PerturbationHead``, members of ``HyperSAGNN`` and pairs of ``PairTable`` on free factors. A token
    is the sum of a free embedding and of projected gene features, as far as there are any; there are no positions.
    Each tied head's attention is drawn towards its network by ``GraphTerm``. The wild type is encoded once a step,
    whatever the batch, and once for given weights in evaluation.

    Terms: ``phenotype``; ``graph_<relation>``, lambda times the divergence over the number of ties; with the decays
    also ``embedding`` and ``pairs``.

    Args:
        spec: Without a graph the cell is its genes, and no head is tied. Reads ``gene_features`` where the data give
            them; without a free embedding and without pair factors no parameter then knows a gene by name, and the
            weights fit any other cell with the same features.
        dim: Width of tokens.
        layers: Attention layers; 0 leaves the tokens as they are.
        heads: Of each layer, dim / heads at least 16.
        expansion: Width of a layer's inner network in units of ``dim``.
        dropout: Share dropped in the layers and in the last MLP.
        gradient_checkpointing: Keep only the layers' inputs, and compute them again in the backward pass.
        ties: Relation -> [layer, head] pairs; none ties each relation among genes to one head.
        graph_weight: Lambda, one number or relation -> number.
        graph_loss, graph_rows, graph_negatives: See ``GraphTerm``.
        networks: ``real``, or ``random`` ones of the same degrees for the ties alone: a control.
        network_seed: Of these random networks.
        hard_mask: Tied heads see nothing but their network; there is no graph term then. A control.
        free_embedding: Whether tokens have a free embedding a gene.
        embedding_decay: Weight of the members' mean squared embedding length.
        pooling: Of q_S: ``mean``, ``sum`` or ``hyper_sagnn``.
        levels: Read the members' levels.
        score: Of the members, ``product`` or ``difference``, see ``HyperSAGNN``; none leaves it out.
        pair_width: Width of the free pair factors f; 0 leaves them out.
        pair_start: ``random``, or ``least_squares``: f starts as the factors of the training pairs' table;
            a model that goes on from a checkpoint keeps those it has.
        pair_penalty: Ridge penalty of that start.
        pair_decay: Weight of the members' mean squared length of f.
        pair_trained: Whether f moves from its start.
        cold_start: Trained genes with the most similar neighborhoods that lend a gene without training samples
            their mean free embedding and pair factors; 0 leaves it with its own.
        cold_power: Exponent of their similarity.
        cold_share: Share of the genes that are treated so in a training step, as if they had never been trained.
        optimizer, scheduler, loss_weights: See ``Model``.

    Raises:
        InputError: Ties, weights or choices that do not fit; nothing to make a token of.
    """

    reads = ScreenSpec
    spec: ScreenSpec
    graph: CellGraph
    adds_genes = True
    memory_options: Mapping[str, Any] = {"gradient_checkpointing": False}

    def __init__(
        self,
        spec: ScreenSpec,
        *,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
        ties: Mapping[str, Sequence[Sequence[int]]] | None = None,
        graph_weight: float | int | Mapping[str, float | int] = 1.0,
        graph_loss: str = "kl",
        graph_rows: int | None = None,
        graph_negatives: int | None = None,
        networks: str = "real",
        network_seed: int = 0,
        hard_mask: bool = False,
        free_embedding: bool = True,
        embedding_decay: float = 0.0,
        pooling: str = "mean",
        levels: bool = False,
        score: str | None = "product",
        pair_width: int = 0,
        pair_start: str = "random",
        pair_penalty: float = 8.0,
        pair_decay: float = 0.0,
        pair_trained: bool = True,
        cold_start: int = 0,
        cold_power: float = 2.0,
        cold_share: float = 0.0,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        if spec.graph is None:
            self.graph = CellGraph(spec.genes, {})
        check_choices(
            spec,
            tokens=free_embedding or spec.gene_features is not None,
            choices={"networks": networks, "pair_start": pair_start, "score": score},
            sizes={"layers": layers, "pair_width": pair_width, "cold_start": cold_start, "cold_power": cold_power}
            | {"embedding_decay": embedding_decay, "pair_decay": pair_decay, "pair_penalty": pair_penalty},
            cold_share=cold_share,
        )
        self.embedding_decay, self.pair_decay = embedding_decay, pair_decay
        self.pair_start, self.pair_penalty = pair_start, pair_penalty
        self.reads_names, self.reads_levels = free_embedding or pair_width > 0, levels
        n_outputs, known = len(spec.outputs), spec.gene_features
        sizes = len(spec.genes), spec.n_trained_with
        self.project = None if known is None else FeatureProjection(torch.from_numpy(known.values), sizes[1], dim)
        cold, self.cold_share = None, cold_share
        if cold_start and self.reads_names:
            features = None if self.project is None else self.project.features
            cold = ColdStart(self.graph, spec.trained_genes, cold_start, cold_power, features, cold_share > 0, sizes[1])
        self.embedding = GeneVectors(*sizes, dim, cold) if free_embedding else None
        self.pairs = PairTable(*sizes, pair_width, n_outputs, cold, pair_trained) if pair_width else None

        self.ties = graph_ties(self.graph, ties, graph_weight, layers, heads)
        drawn = randomize(self.graph, seed=network_seed) if networks == "random" else self.graph
        masks: list[dict[int, HardMask]] = [{} for _ in range(layers)]
        if hard_mask:
            for tie in self.ties:
                masks[tie.layer][tie.head] = HardMask(drawn, tie.relation)
        self.encoder = CellEncoder(
            [TransformerLayer(dim, heads, expansion, dropout, mask) for mask in masks], dim, gradient_checkpointing
        )
        # Confined heads have nothing to be persuaded of.
        terms = [] if hard_mask else self.ties
        self.graph_terms = GraphTerms(drawn, terms, graph_loss, graph_rows, graph_negatives)
        self.recall_before: list[float] = [math.nan] * len(terms)
        self.dropout = nn.Dropout(dropout)
        self.kind_rows = KindRows(spec.kinds)
        self.head = PerturbationHead(dim, len(spec.kinds), pooling, heads, levels=levels)
        self.readout = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, n_outputs)
        )
        self.members = HyperSAGNN(dim, n_outputs, heads, score) if score is not None else None
        # One kind alone would only shift all members alike, so it has no embedding.
        several = self.members is not None and len(spec.kinds) > 1
        self.kind_embedding = nn.Embedding(len(spec.kinds), dim) if several else None
        if self.kind_embedding is not None:
            nn.init.zeros_(self.kind_embedding.weight)
        self.started: Tensor
        self.register_buffer("started", torch.tensor(False))

    def encode(self) -> _Step:
        """The wild type from the present weights."""
        as_cold_N = None
        if self.training and self.cold_share:
            as_cold_N = torch.rand(len(self.spec.genes), device=self.center.device) < self.cold_share
        parts = [] if self.project is None else [self.project()]
        if self.embedding is not None:
            parts.append(self.embedding(as_cold_N))
        pair_NP = None if self.pairs is None else self.pairs.vectors(as_cold_N)
        return _Step(self.encoder(sum(parts), self.graph_terms.places, self.graph_terms.summed), pair_NP)

    def forward(self, batch: PerturbationBatch) -> Float[Tensor, "B T"]:
        """The prediction in the target's units, log-odds for a binary target."""
        step = self.wild_type()
        z_BD = self._read(step, batch)
        cls_BD = step.cell.cls_D.expand_as(z_BD)
        raw_BT = self.readout(torch.cat([cls_BD, z_BD], 1))
        if self.members is not None:
            h_MD = self.dropout(step.cell.gene_ND.index_select(0, batch.gene))
            if self.kind_embedding is not None:
                h_MD = h_MD + self.kind_embedding(self.kind_rows(batch.kind))
            raw_BT = raw_BT + self.members(h_MD, batch.ptr)
        if self.pairs is not None:
            assert step.pair_NP is not None
            raw_BT = raw_BT + self.pairs(step.pair_NP, batch.gene, batch.ptr)
        return self.center + self.scale * raw_BT

    def _read(self, step: _Step, batch: PerturbationBatch) -> Float[Tensor, "B D"]:
        return self.head(step.cell.gene_ND, batch.gene, self.kind_rows(batch.kind), batch.level, batch.ptr)

    def losses(self, batch: PerturbationBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The phenotype, the graph terms of this step's encoding, and how long the members' vectors are."""
        losses = super().losses(batch, prediction) | self.graph_terms.losses(self.take_step().cell.scores)
        tables = {"embedding": (self.embedding, self.embedding_decay)}
        if self.pairs is not None:
            tables["pairs"] = (self.pairs.vectors, self.pair_decay)
        for name, (vectors, decay) in tables.items():
            if vectors is not None and decay:
                losses[name] = decay * vectors.length(batch.gene)
        return losses

    def diagnostics(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """Divergence and edge recall of the tied heads, also where lambda is 0."""
        return self.graph_terms.diagnostics(self.wild_type().cell.scores)

    def set_embeddings(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """``z_S``: what each set makes of the cell [B, D]."""
        return {"z_S": self._read(self.wild_type(), batch)}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``tokens``: genes after the last layer [N, D]; ``pair_factors``: free factors of the pairs [N, P]."""
        step = self.wild_type()
        found = {"tokens": step.cell.gene_ND}
        return found if step.pair_NP is None else found | {"pair_factors": step.pair_NP}

    def cell_embeddings(self) -> dict[str, Tensor]:
        """``h_CLS`` [D], the same for all sets: the wild type has one CLS."""
        return {"h_CLS": self.wild_type().cell.cls_D}

    def attended(self, batch: PerturbationBatch) -> Float[Tensor, "B N"]:
        """Beta, how much each set looks at each gene."""
        gene_ND = self.wild_type().cell.gene_ND
        return self.head.attention(gene_ND, batch.gene, self.kind_rows(batch.kind), batch.ptr)

    @torch.no_grad()
    def report_sections(self, history: pd.DataFrame | None) -> list[Section]:
        """A table of the graph terms: divergence, edge recall before and after, share of the objective."""
        terms, scores = self.eval().graph_terms, self.wild_type().cell.scores
        found = zip(terms.values(scores), self.recall_before, terms.recalls(scores), strict=True)
        rows = [
            (*tie, float(value), before, float(after))
            for tie, (value, before, after) in zip(terms.ties, found, strict=True)
        ]
        return [graph_term_section(rows, history)] if rows else []

    def on_fit_start(self) -> None:
        """The least-squares start, once in a model's life, and the edge recall before the first step."""
        if not self.started and self.pair_start == "least_squares":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.start_pairs(data.packed[torch.from_numpy(data.split.index("train"))])
            assert self.pairs is not None
            for tensor in (self.pairs.vectors.table.weight, self.pairs.product.pair.weight):
                # Another machine's linear algebra may round in another way, and nothing would bring them together.
                tensor.data.copy_(self.trainer.strategy.broadcast(tensor.data))
        self.started.fill_(True)
        if self.trainer.ckpt_path is None:  # else the heads are trained already
            with torch.no_grad():
                recalls = self.graph_terms.recalls(self.eval().wild_type().cell.scores)
            self.recall_before = [float(recall) for recall in recalls]
            self.train()

    @torch.no_grad()
    def start_pairs(self, train: PerturbationBatch) -> None:
        """Factorize the table of training pairs, and let the pair factors say just that.

        A pair without a value counts as 0 in the target's own units: the wild type's, not the mean.

        Args:
            train: All training samples as one batch.
        """
        last = self.readout[-1]
        assert self.pairs is not None
        assert isinstance(last, nn.Linear)
        target_BT, zero_T = train.target / self.scale.to(train.target), -self.center / self.scale
        if self.spec.task == "binary":
            target_BT, zero_T = 4 * train.target - 2, torch.zeros_like(self.center)  # log-odds near one half
        self.pairs.start(train.gene, train.ptr, target_BT, self.pair_penalty)
        last.bias.copy_(zero_T)
        # What the other heads say at random would drown the start; they begin at nothing and grow from there.
        last.weight.zero_()
        if self.members is not None:
            self.members.readout.weight.zero_()
