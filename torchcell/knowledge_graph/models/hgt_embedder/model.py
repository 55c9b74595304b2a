"""``HGTEmbedder``: typed attention over a knowledge graph, embeddings of all nodes out. The whole forward is here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.evaluation.streaming import ScoreName
from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError, near, some
from torchcell.knowledge_graph.datamodule import LinkBatch
from torchcell.knowledge_graph.embedding_health import TrainingBounds
from torchcell.knowledge_graph.models.hgt_embedder.losses import (
    InfoNCE,
    LinkDraw,
    LinkScorer,
    LinkTerm,
    similar_nodes,
    variance_hinge,
)
from torchcell.knowledge_graph.models.hgt_embedder.ranking import StreamingLinks, link_ranks
from torchcell.knowledge_graph.models.hgt_embedder.sampling import LinkNegatives, StepGraph, draw_edges
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.nn.hgt import TypedHGT
from torchcell.nn.sparse import full_precision

# Options, ``model.<group>.<field>`` on the command line -------------------------------------------------


@dataclass(frozen=True)
class EncoderOptions:
    """How vectors are made: ``model.encoder``.

    Attributes:
        embedding_dim: Width of the learned embeddings.
        dim: Width D of all else.
        layers: HGT layers.
        heads: Attention heads; ``dim / heads`` is 16 or more.
        residual: a, the fraction of x^0 in each layer's output, 0 to less than 1.
        jump: Give the norm of the sum of x^0 and all layers, each by its own matrix (jumping knowledge, Xu et al.,
            ICML 2018).
        degrees: Whether nodes read their degrees.
        dropout: Fraction of the entries of the embeddings and of each layer's output dropped in training.
        embedding_sd: Standard deviation of a fresh embedding's entries.
        recompute: Compute each layer again in the backward pass, which holds its insides only once.
        health: From where on the vectors of a node type count as healthy.
    """

    embedding_dim: int = 512
    dim: int = 256
    layers: int = 2
    heads: int = 8
    residual: float | int = 0.3
    jump: bool = False
    degrees: bool = True
    dropout: float | int = 0.2
    embedding_sd: float | int = 0.1
    recompute: bool = False
    health: TrainingBounds = field(default_factory=TrainingBounds)

    def __post_init__(self) -> None:
        _at_least(1, "encoder", embedding_dim=self.embedding_dim, dim=self.dim, layers=self.layers, heads=self.heads)
        _fraction("encoder", dropout=self.dropout)
        if self.dim % self.heads or self.dim // self.heads < 16:
            raise InputError(
                f"model.encoder.dim={self.dim} with model.encoder.heads={self.heads}: heads need a width of 16 or "
                "more, and to divide it"
            )
        if not 0 <= self.residual < 1:
            raise InputError(f"model.encoder.residual={self.residual} must lie in 0 to 1, 1 left out")
        if self.embedding_sd <= 0:
            raise InputError(f"model.encoder.embedding_sd={self.embedding_sd} must be above 0")


@dataclass(frozen=True)
class DecoderOptions:
    """How links are scored: ``model.decoder``.

    Attributes:
        node_bias: Whether there is a bias a node, edge type and end.
    """

    node_bias: bool = True


@dataclass(frozen=True)
class SamplingOptions:
    """What a training step draws: ``model.sampling``.

    Attributes:
        edges: Edges of all edge types that enter the term ``link`` in a step; 0 leaves the term out.
        edge_balance: 1 draws edge types in proportion to their edges, 0 all alike.
        edge_fraction: At most this fraction of an edge type's edges is drawn in a step, so messages remain.
        negatives: K, negatives that the links of an edge type share, at either end.
        matched_fraction: Of them, in proportion to degree.
        fan_outs: In training, edges read into each node at each hop, one number a layer; none reads all. Evaluation
            reads all.
    """

    edges: int = 5_000
    edge_balance: float | int = 1.0
    edge_fraction: float | int = 0.5
    negatives: int = 64
    matched_fraction: float | int = 0.5
    fan_outs: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _at_least(0, "sampling", edges=self.edges, edge_balance=self.edge_balance)
        _at_least(
            1, "sampling", negatives=self.negatives, **{f"fan_outs[{i}]": n for i, n in enumerate(self.fan_outs or ())}
        )
        _fraction("sampling", edge_fraction=self.edge_fraction, matched_fraction=self.matched_fraction)


@dataclass(frozen=True)
class LossOptions:
    """Which terms there are, beside their weights: ``model.losses``.

    Attributes:
        links: ``softmax`` or ``bce``, how links are compared with negatives, see ``LinkTerm``.
        similar_types: Node types whose similar nodes attract; none: the ends of the supervised edge types.
        similar_above: Jaccard index of the training neighbors that makes nodes similar.
        temperature: Of the term ``contrastive``, see ``InfoNCE``.
        variance: Whether the hinge on spread is a term.
    """

    links: str = "softmax"
    similar_types: Sequence[str] | None = None
    similar_above: float | int = 0.1
    temperature: float | int = 0.2
    variance: bool = False

    def __post_init__(self) -> None:
        _fraction("losses", similar_above=self.similar_above)
        if self.links not in ("bce", "softmax"):
            raise InputError(f"model.losses.links is 'bce' or 'softmax', not {self.links!r}")
        if self.temperature <= 0:
            raise InputError(f"model.losses.temperature={self.temperature} must be above 0")


def _at_least(least: int, group: str, **values: float | int) -> None:
    """Refuse values of a group below ``least``."""
    low = [f"model.{group}.{name}={value}" for name, value in values.items() if value < least]
    if low:
        raise InputError(f"{', '.join(low)}: must be {least} or more")


def _fraction(group: str, **values: float | int) -> None:
    """Refuse values of a group outside 0 to 1."""
    outside = [f"model.{group}.{name}={value}" for name, value in values.items() if not 0 <= value <= 1]
    if outside:
        raise InputError(f"{', '.join(outside)}: must lie in 0 to 1")


# The encoder --------------------------------------------------------------------------------------------


class TypedEncoder(nn.Module):
    r"""Initial embeddings, then layers of a heterogeneous graph transformer that never forget them.

    .. math::
        x^0 = \mathrm{norm}(W_{\tau(i)} e_i + V_{\tau(i)} \log(1 + d_i)), \quad
        x^{l+1} = (1 - a) \, \mathrm{HGT}(x^l) + a \, x^0

    with d_i the degrees of node i in each relation of the graph that is given, so that they hold no edge that was
    taken out. The initial residual a keeps nodes apart that have the same neighbors (Chen et al., GCNII, ICML 2020).

    Args:
        sizes: Nodes of each type [K].
        relations: Node types of source and target of each relation [R].
        options: Widths and depth.

    Shapes:
        [M, D] for the M nodes that are given.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        relations: Sequence[tuple[int, int]],
        options: EncoderOptions = EncoderOptions(),
    ) -> None:
        super().__init__()
        self.sizes, self.relations, self.options = list(sizes), list(relations), options
        dim, n_degrees = options.dim, len(relations) if options.degrees else 0
        self.embedding = nn.Embedding(self.n_inputs, options.embedding_dim)
        self.project = nn.Parameter(torch.empty(len(sizes), options.embedding_dim, dim))
        self.read_degree = nn.Parameter(torch.empty(n_degrees, dim)) if n_degrees else None
        self.norm = nn.LayerNorm(dim)
        # The residual of the layers is this module's own, so that 0 leaves a node nothing of itself.
        self.layers = nn.ModuleList(
            TypedHGT(dim, self.relations, len(sizes), options.heads, norm=True, residual=0.0)
            for _ in range(options.layers)
        )
        self.jump = nn.Parameter(torch.empty(options.layers + 1, dim, dim)) if options.jump else None
        self.last = nn.LayerNorm(dim) if options.jump else None
        self.dropout = nn.Dropout(options.dropout)
        self.type_N: Tensor
        type_N = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(self.sizes))
        self.register_buffer("type_N", type_N, persistent=False)
        self.reset_parameters()

    @property
    def n_inputs(self) -> int:
        """Rows of the embedding: one a node."""
        return sum(self.sizes)

    def inputs(self, node_M: Int[Tensor, " M"] | None) -> Float[Tensor, "M E"]:
        """The embeddings of some nodes, or of all where none are named."""
        return self.embedding.weight if node_M is None else self.embedding(node_M)

    def reset_parameters(self) -> None:
        """Draw new embeddings and matrices; each layer draws its own."""
        nn.init.normal_(self.embedding.weight, std=self.options.embedding_sd)
        for matrix in (self.project, self.read_degree, self.jump):
            if matrix is not None:
                nn.init.normal_(matrix, std=matrix.shape[-2] ** -0.5)
        if self.read_degree is not None:
            nn.init.normal_(self.read_degree, std=0.1 * self.options.embedding_sd)

    def forward(
        self,
        csrs: Sequence[CSR],
        bounds: Sequence[int],
        degree_MR: Float[Tensor, "M R"] | None = None,
        node_M: Int[Tensor, " M"] | None = None,
    ) -> Float[Tensor, "M D"]:
        """Vectors of the nodes.

        Args:
            csrs: A matrix a relation [R], rows the nodes of its target type and columns those of its source type.
            bounds: Node type k holds the rows bounds[k] to bounds[k + 1] of the nodes.
            degree_MR: See ``degrees``; needed where they are read.
            node_M: Which nodes, sorted by node type, if not all.
        """
        residual = self.options.residual
        first_MD = self._first(bounds, degree_MR, node_M)  # x^0
        x_MD, seen = first_MD, [first_MD]
        for layer in self.layers:
            if self.options.recompute and torch.is_grad_enabled():
                heard_MD = checkpoint(layer, x_MD, bounds, csrs, use_reentrant=False)
            else:
                heard_MD = layer(x_MD, bounds, csrs)
            x_MD = (1 - residual) * self.dropout(heard_MD) + residual * first_MD
            seen.append(x_MD)
        if self.jump is None or self.last is None:
            return x_MD
        return self.last(torch.stack([x @ matrix for x, matrix in zip(seen, self.jump, strict=True)]).sum(0))

    def degrees(self, csrs: Sequence[CSR]) -> Float[Tensor, "N R"] | None:
        """log(1 + summed weight) of the edges into each node [N, R], of the whole graph; none where none are read."""
        if self.read_degree is None:
            return None
        columns, starts = [], [sum(self.sizes[:number]) for number in range(len(self.sizes) + 1)]
        for (_, target), csr in zip(self.relations, csrs, strict=True):
            total_E = torch.cat([csr.weight.new_zeros(1), csr.weight.cumsum(0)])
            column_N = csr.weight.new_zeros(len(self.type_N))
            column_N[starts[target] : starts[target + 1]] = total_E[csr.indptr.long()].diff().log1p()
            columns.append(column_N)
        return torch.stack(columns, dim=1)

    def _first(self, bounds: Sequence[int], degree_MR: Tensor | None, node_M: Tensor | None) -> Tensor:
        """x^0 [M, D]."""
        raw_ME = self.dropout(self.inputs(node_M))
        parts = [
            raw_ME[first:last] @ matrix
            for (first, last), matrix in zip(itertools.pairwise(bounds), self.project, strict=True)
        ]
        first_MD = torch.cat(parts)
        if self.read_degree is not None:
            assert degree_MR is not None
            first_MD = first_MD + degree_MR @ self.read_degree
        return self.norm(first_MD)

    def extra_repr(self) -> str:
        """Widths and the residual."""
        return f"{self.options.embedding_dim} -> {self.options.dim}, residual={self.options.residual}"


class ConstantEncoder(TypedEncoder):
    """One embedding a node type: every type whose nodes have alike neighbors collapses."""

    @property
    def n_inputs(self) -> int:
        """Rows of the embedding: one a node type."""
        return len(self.sizes)

    def inputs(self, node_M: Int[Tensor, " M"] | None) -> Float[Tensor, "M E"]:
        """The embedding of each node's type."""
        return self.embedding(self.type_N if node_M is None else self.type_N[node_M])


# The decoder --------------------------------------------------------------------------------------------


class DistMult(nn.Module, LinkScorer):
    r"""Score of the links (source i, edge type m, target j); Yang et al., ICLR 2015, arXiv:1412.6575.

    .. math::
        s_{imj} = \sum_d w_{md} z_{id} z_{jd} / \sqrt{D} + c_m + b^{source}_{mi} + b^{target}_{mj}

    The product says the same of both directions. A directed edge type within one node type, e.g. ``Gr>G``, also has
    an antisymmetric part, the imaginary one of ComplEx (Trouillon et al., ICML 2016): with the halves z = [a, b],
    sum_d v_md (a_id b_jd - b_id a_jd) / sqrt(D). Other edge types join two node types, whose vectors differ anyway.

    Args:
        features: D, even if any edge type is ``directed``.
        n_edge_types: Edge types.
        n_nodes: N, rows of the biases; 0 leaves the biases out.
        directed: Codes of the edge types with an antisymmetric part.
        symmetric: Codes of the edge types without direction, whose two ends share one bias a node.

    Shapes:
        source_PD, target_PD [P, D], and the edge type and node numbers [P] -> [P].
    """

    def __init__(
        self,
        features: int,
        n_edge_types: int,
        n_nodes: int = 0,
        directed: Sequence[int] = (),
        symmetric: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if directed and features % 2:
            raise InputError(f"{features} features: directed edge types need an even number")
        self.features, self.n_edge_types, self.n_nodes = features, n_edge_types, n_nodes
        self.weight = nn.Parameter(torch.empty(n_edge_types, features))
        self.turn = nn.Parameter(torch.empty(len(directed), features // 2)) if directed else None
        row = torch.full((n_edge_types,), -1)
        row[list(directed)] = torch.arange(len(directed))
        self.turn_row: Tensor
        self.register_buffer("turn_row", row, persistent=False)
        self.bias = nn.Parameter(torch.zeros(n_edge_types))
        # One table an edge type and end, so that a node's bias for one relation says nothing of another.
        self.node_bias = nn.Parameter(torch.zeros(2, n_edge_types, n_nodes)) if n_nodes else None
        self.target_end: Tensor
        end = torch.ones(n_edge_types, dtype=torch.int64)
        end[list(symmetric)] = 0
        self.register_buffer("target_end", end, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights near 1, so that alike nodes attract at the start; no turn, no biases."""
        nn.init.normal_(self.weight, 1.0, 0.1)
        nn.init.zeros_(self.bias)
        for zero in (self.turn, self.node_bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(
        self,
        source_PD: Float[Tensor, "P D"],
        target_PD: Float[Tensor, "P D"],
        edge_type_P: Int[Tensor, " P"],
        source_P: Int[Tensor, " P"],
        target_P: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Log-odds of P links.

        Args:
            source_PD: Vectors of the sources [P, D].
            target_PD: Vectors of the targets [P, D].
            edge_type_P: Codes of the edge types [P].
            source_P: Node numbers of the sources, for the biases [P].
            target_P: Node numbers of the targets [P].

        Returns:
            [P].
        """
        query_PD = self.query(source_PD, edge_type_P)
        score_P = (query_PD * target_PD).sum(-1)
        return (
            score_P
            + self.offset(edge_type_P, source_P, 0)
            + self.offset(edge_type_P, target_P, 1)
            + self.bias[edge_type_P]
        )

    def query(self, source_PD: Float[Tensor, "P D"], edge_type_P: Int[Tensor, " P"]) -> Float[Tensor, "P D"]:
        """What a target's vector is multiplied with, so that many targets cost one matrix product [P, D]."""
        query_PD = source_PD * self.weight[edge_type_P]
        if self.turn is not None:
            row_P = self.turn_row[edge_type_P]
            turn_PH = self.turn[row_P.clamp(min=0)] * (row_P >= 0)[:, None]
            a_PH, b_PH = source_PD.chunk(2, dim=-1)
            query_PD = query_PD + torch.cat([-turn_PH * b_PH, turn_PH * a_PH], dim=-1)
        return query_PD * self.features**-0.5

    def grid(
        self,
        source_PD: Float[Tensor, "P D"],
        target_KD: Float[Tensor, "K D"],
        code: int,
        source_P: Int[Tensor, " P"],
        target_K: Int[Tensor, " K"],
    ) -> Float[Tensor, "P K"]:
        """Log-odds of one edge type between each of P sources and each of K targets [P, K]; see ``forward``."""
        code_P, code_K = torch.full_like(source_P, code), torch.full_like(target_K, code)
        with torch.autocast(source_PD.device.type, enabled=False):  # rounded log-odds would tie in a ranking
            score_PK = self.query(full_precision(source_PD), code_P) @ full_precision(target_KD).T
        offset_PK = self.offset(code_P, source_P, 0)[:, None] + self.offset(code_K, target_K, 1)
        return score_PK + offset_PK + self.bias[code]

    def offset(self, edge_type_P: Int[Tensor, " P"], node_P: Int[Tensor, " P"], end: int) -> Tensor:
        """Biases of nodes at one end, 0 the source and 1 the target [P]; zeros without biases."""
        if self.node_bias is None:
            return self.bias.new_zeros(len(node_P))
        table_P = self.target_end[edge_type_P] * end
        return self.node_bias[table_P, edge_type_P, node_P]

    def extra_repr(self) -> str:
        """Width, edge types, and whether nodes have biases."""
        return f"{self.features}, edge_types={self.n_edge_types}, node_biases={self.node_bias is not None}"


# The model ----------------------------------------------------------------------------------------------


def message_graph(spec: KnowledgeGraphSpec) -> TypedGraph:
    """The graph of the spec, with edges to train on."""
    nodes = TypedGraph.from_plain(spec.knowledge_graph)
    empty = [name for name in spec.supervised if not len(nodes.edges(name)[0])]
    if empty:
        raise InputError(f"no edges of {some(empty)} are left to train on; change the split or data.record.edge_types")
    return nodes


def similar_types(nodes: TypedGraph, chosen: Sequence[str] | None, supervised: Sequence[str]) -> list[int]:
    """Numbers of the node types whose similar nodes attract."""
    if chosen is None:
        return sorted({node_type for name in supervised for node_type in nodes.ends[name]})
    unknown = [name for name in chosen if name not in nodes.node_types]
    if unknown:
        hint = [hit for name in unknown for hit in near(name, nodes.node_types)] or list(nodes.node_types)
        raise InputError(f"model.losses.similar_types: no node type {some(unknown)}; the nearest are {hint}")
    return [nodes.node_types.index(name) for name in chosen]


RANKED = 100
"""Held-out links an edge type that are ranked after each epoch."""


@dataclass(frozen=True, eq=False)
class _Step:
    """What one training step reads: links, similar nodes, and the vectors of all nodes they name."""

    links: list[LinkDraw]
    targets: list[LinkDraw]
    similar: list[tuple[Tensor, ...]]  # of each node type the nodes i, j and k of InfoNCE
    look: Callable[[Tensor], Tensor]
    z_MD: Tensor
    bounds: Sequence[int]


class HGTEmbedder(WildTypeModel):
    r"""Node embeddings by typed attention over the message graph, read by DistMult with node biases.

    ::

        embedding [N, E]    degrees [N, R]
               |                  |
               +-- W by type -----+
                        |
                    x^0 [N, D] ---------------+---------------+
                        |                     | a             | a
                        +--> typed attention -+--> ... -------+--> z [N, D]
                             over messages                           |
                                                                     | rows i and j
        links (i, m, j) [B] --> DistMult: sum_d w_md z_id z_jd ------+
                            --> biases of m, of i and j in m         v
                                                                sum: log-odds [B] -> [B, T]

    A training step takes its links out of the messages, so none is read off the graph: the positives of its batch and
    ``sampling.edges`` further edges. Terms: ``phenotype``, BCE on the batch's candidates; ``target``, its positives
    against shared negatives, beside a prior against their lists; ``link``, the further edges of all edge types;
    ``contrastive``, InfoNCE over nodes with alike training neighbors; with ``losses.variance`` the hinge on spread. A
    term of no parts is left out.

    Args:
        spec: With the message graph and the supervised edge types.
        encoder: How vectors are made.
        decoder: How links are scored.
        sampling: What a step draws.
        losses: Which terms there are.
        optimizer, scheduler, loss_weights: See ``Model``.

    Raises:
        InputError: Data that are no links, an unknown node type, an edge type without any edge left, fan-outs that are
            not one a layer.

    Example:
        >>> model = HGTEmbedder(spec, encoder=EncoderOptions(dim=64, heads=4), sampling=SamplingOptions(negatives=32))
        >>> model.node_embeddings()  # [N, 64]
    """

    reads = KnowledgeGraphSpec
    spec: KnowledgeGraphSpec
    score_metrics = ("AUROC", "MRR")
    memory_options: Mapping[str, Any] = {"encoder.recompute": False}
    encoder_class: ClassVar[type[TypedEncoder]] = TypedEncoder

    def __init__(
        self,
        spec: KnowledgeGraphSpec,
        *,
        encoder: EncoderOptions = EncoderOptions(),
        decoder: DecoderOptions = DecoderOptions(),
        sampling: SamplingOptions = SamplingOptions(),
        losses: LossOptions = LossOptions(),
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        self.nodes = nodes = message_graph(spec)
        fan_outs = sampling.fan_outs
        if fan_outs is not None and len(fan_outs) != encoder.layers:
            raise InputError(
                f"model.sampling.fan_outs={list(fan_outs)} for model.encoder.layers={encoder.layers}: "
                "give one number a layer, or null"
            )
        self.sampling, self.variance, self.health = sampling, losses.variance, encoder.health
        self.bounds = [int(bound) for bound in nodes.bounds]
        sizes = [last - first for first, last in itertools.pairwise(self.bounds)]
        relations = [(relation.source, relation.target) for relation in nodes.relations]
        self.encoder = self.encoder_class(sizes, relations, encoder)
        symmetric = [code for code, name in enumerate(nodes.edge_types) if name in nodes.symmetric]
        ends = [nodes.ends[name] for name in nodes.edge_types]
        directed = [code for code, (a, b) in enumerate(ends) if a == b and code not in symmetric]
        self.decoder = DistMult(encoder.dim, len(ends), len(nodes) if decoder.node_bias else 0, directed, symmetric)
        known = LinkNegatives(
            [nodes.edges(name) for name in nodes.edge_types],
            [(self._span(source), self._span(target)) for source, target in ends],
            symmetric,
            len(nodes),
            sampling.matched_fraction,
        )
        self.link_term = LinkTerm(known, sampling.negatives, losses.links)
        self.step_graph = StepGraph(nodes, fan_outs)
        similar = similar_types(nodes, losses.similar_types, spec.supervised)
        self._firsts = [self.bounds[number] for number in similar]
        self.contrastive = nn.ModuleList(
            InfoNCE(*similar_nodes(nodes, number, losses.similar_above), sizes[number], losses.temperature)
            for number in similar
        )
        self.val_links = StreamingLinks()
        self._drawn: _Step | None = None

    def encode(self) -> Float[Tensor, "N D"]:
        """Vectors of all nodes from the whole message graph [N, D]."""
        csrs = self.nodes.csrs()
        z_ND: Tensor = self.encoder(csrs, self.bounds, self.encoder.degrees(csrs))
        return z_ND

    def forward(self, batch: LinkBatch) -> Float[Tensor, "B T"]:
        """Log-odds, the same in every column: the outputs differ in their negatives only."""
        if self.training:
            self._drawn = self._draw(batch)
            look = self._drawn.look
        else:
            look = self.wild_type().__getitem__
        source, target = batch.source_node, batch.target_node
        score_B = self.decoder(look(source), look(target), batch.edge_type, source, target)
        return score_B[:, None].expand(-1, len(self.spec.outputs))

    def losses(self, batch: LinkBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The terms, from the encoding that gave the prediction."""
        step, self._drawn = self._drawn or self._draw(batch), None
        terms = super().losses(batch, prediction)
        if "lists" in terms:
            terms["target"] = terms.pop("lists")
        else:
            terms["target"] = self.link_term(step.look, self.decoder, step.targets)
        if step.links:
            terms["link"] = self.link_term(step.look, self.decoder, step.links)
        if step.similar:
            terms["contrastive"] = self._contrastive(step)
        if self.variance:
            terms["variance"] = variance_hinge(step.z_MD, step.bounds)
        return terms

    def diagnostics(self, batch: LinkBatch) -> dict[str, Tensor]:
        """``link_bce``: mean BCE of positives + mean BCE of negatives; 2 ln 2 where all log-odds are 0."""
        score_B = self(batch.blind())[:, 0]
        positive, negative = (batch.target == 1).any(1), (batch.target == 0).any(1)
        if not (positive.any() and negative.any()):
            return {}
        softplus = nn.functional.softplus
        return {"link_bce": softplus(-score_B[positive]).mean() + softplus(score_B[negative]).mean()}

    def validation_step(self, batch: LinkBatch, batch_idx: int) -> None:
        """See ``Model``; the links are kept, to be ranked when all are seen."""
        super().validation_step(batch, batch_idx)
        if self.has_prior:
            return
        at = (batch.target == 1).any(1)
        self.val_links.update(batch.edge_type[at], batch.source_node[at], batch.target_node[at])

    def held_out_scores(self) -> dict[str, Tensor]:
        """``<edge_type>_tail/MRR`` and ``_head``, of at most ``RANKED`` links an edge type.

        Those of the evaluator, but that test links stay in the lists: the model does not know of them. Beside a prior
        there are none: the lists of the batches have it.
        """
        found: dict[str, Tensor] = {}
        if self.has_prior:
            return found
        links_n3 = self.val_links.compute()
        self.val_links.reset()
        z_ND, known = self.wild_type(), self.link_term.negatives
        for name in self.spec.supervised:
            code = self.nodes.edge_types.index(name)
            source_P, target_P = links_n3[links_n3[:, 0] == code, 1:].T
            chosen = torch.randperm(len(source_P), generator=torch.Generator().manual_seed(0))[:RANKED]
            chosen = chosen.to(source_P.device)
            rank_P2 = link_ranks(z_ND, self.decoder, known, code, source_P[chosen], target_P[chosen])
            for k, end in enumerate(("tail", "head")):
                found[ScoreName(f"{name}_{end}", "MRR")] = (1 / rank_P2[:, k]).mean()
        return found

    @torch.no_grad()
    def node_embeddings(self) -> Float[Tensor, "N D"]:
        """The final vectors of all nodes, from the whole message graph and without dropout [N, D]."""
        was = self.training
        self.eval()
        try:
            return self.encode()
        finally:
            self.train(was)

    def _span(self, node_type: int) -> tuple[int, int]:
        """Where the nodes of a type stand."""
        return self.bounds[node_type], self.bounds[node_type + 1]

    def _contrastive(self, step: _Step) -> Tensor:
        """Mean over node types of InfoNCE."""
        terms = [
            term(step.look(i), step.look(j), step.look(k), i - first, k - first)
            for first, term, (i, j, k) in zip(self._firsts, self.contrastive, step.similar, strict=True)
        ]
        return torch.stack(terms).mean()

    def _draw(self, batch: LinkBatch) -> _Step:
        """Links and similar nodes of a step, and the vectors of what they name from the graph without the links."""
        codes, numbers, targets, links = [], [], [], []
        known, sampling = self.link_term.negatives, self.sampling
        for code in batch.edge_type.unique().tolist():
            at = (batch.edge_type == code).nonzero()[:, 0]
            number = known.edge_number(code, batch.source_node[at], batch.target_node[at])
            at, number = at[number >= 0], number[number >= 0]  # edges of the graph: no label is read
            if batch.lists is None:
                targets.append(self.link_term.draw(code, batch.source_node[at], batch.target_node[at]))
            numbers.append(number)
            codes.append(torch.full_like(numbers[-1], code))
        drawn = draw_edges(known.n_edges, sampling.edges, sampling.edge_balance, sampling.edge_fraction, self.device)
        for code, number in enumerate(drawn if sampling.edges else []):
            source, target = known.ends(code, number)
            links.append(self.link_term.draw(code, source, target))
            numbers.append(number)
            codes.append(torch.full_like(number, code))
        similar = [
            tuple(first + node for node in cast(InfoNCE, term).draw())
            for first, term in zip(self._firsts, self.contrastive, strict=True)
        ]
        named = [batch.source_node, batch.target_node, *(draw.nodes for draw in targets + links)]
        named += [node for nodes in similar for node in nodes]
        named_n = torch.cat(named).unique()
        part = self.step_graph.without(torch.cat(codes), torch.cat(numbers), named_n)
        degree_NR = self.encoder.degrees(part.whole)
        degree_MR = degree_NR if degree_NR is None or part.node_M is None else degree_NR[part.node_M]
        z_MD = self.encoder(part.csrs, part.bounds, degree_MR, part.node_M)
        # Every look gets a gradient as large as what it looks into: so they look into the named rows only.
        row_N = part.row_N
        z_nD = z_MD[row_N[named_n]]
        row_N[named_n] = torch.arange(len(named_n), device=row_N.device)
        return _Step(links, targets, similar, lambda node: z_nD[row_N[node]], z_MD, part.bounds)


class ConstantInputHGT(HGTEmbedder):
    """A control of the study of collapse: all nodes of a type begin as one vector.

    ``model._target_=torchcell.knowledge_graph.models.hgt_embedder.model.ConstantInputHGT``
    """

    encoder_class = ConstantEncoder
