"""``HGTEmbedder``: typed attention over a knowledge graph, embeddings of all nodes out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.evaluation.streaming import ScoreName
from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError, near, some
from torchcell.knowledge_graph.datamodule import LinkBatch
from torchcell.knowledge_graph.embedding_health import TrainingBounds
from torchcell.knowledge_graph.models.hgt_embedder.decoder import (
    DistMult,
    LinkNegatives,
    LinkScores,
    StreamingLinks,
    WalkScores,
    WalkTable,
    link_ranks,
)
from torchcell.knowledge_graph.models.hgt_embedder.encoder import TypedEncoder
from torchcell.knowledge_graph.models.hgt_embedder.losses import (
    InfoNCE,
    LinkDraw,
    LinkTerm,
    similar_nodes,
    variance_hinge,
)
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.typed_graph import NeighborSampler, TypedGraph


def message_graph(spec: KnowledgeGraphSpec) -> TypedGraph:
    """The graph of the spec, with edges to train on."""
    nodes = TypedGraph.from_plain(spec.knowledge_graph)
    empty = [name for name in spec.supervised if not len(nodes.edges(name)[0])]
    if empty:
        raise InputError(f"no edges of {some(empty)} are left to train on; change the split or data.metaedges")
    return nodes


def health_bounds(chosen: Mapping[str, float | int] | None) -> TrainingBounds:
    """The bounds by which a kind's vectors count as healthy; those not named are the usual ones."""
    known = [one.name for one in fields(TrainingBounds)]
    unknown = [name for name in chosen or {} if name not in known]
    if unknown:
        raise InputError(f"model.health has no bound {some(unknown)}; it has {known}")
    return TrainingBounds(**(chosen or {}))


def alike_kinds(nodes: TypedGraph, chosen: Sequence[str] | None, supervised: Sequence[str]) -> list[int]:
    """Numbers of the kinds whose similar nodes attract."""
    if chosen is None:
        return sorted({kind for name in supervised for kind in nodes.ends[name]})
    for name in chosen:
        if name not in nodes.kinds:
            hint = near(name, nodes.kinds) or list(nodes.kinds)
            raise InputError(f"model.contrastive_kinds: no kind {name!r}; the nearest are {hint}")
    return [nodes.kinds.index(name) for name in chosen]


def walk_readers(nodes: TypedGraph, supervised: Sequence[str], most: int, steps: int, hidden: int) -> nn.ModuleDict:
    """``WalkScores`` of the supervised metaedges whose kinds have at most so many pairs, by the metaedge's number."""
    relations = [(relation.source, relation.target) for relation in nodes.relations]
    sizes, readers = np.diff(nodes.bounds).tolist(), nn.ModuleDict()
    for name in supervised:
        if math.prod(sizes[kind] for kind in nodes.ends[name]) <= most:
            own = [number for number, relation in enumerate(nodes.relations) if relation.metaedge == name]
            reader = WalkScores(relations, sizes, (own[0], own[-1]), nodes.csrs(), steps, hidden)
            readers[str(nodes.metaedges.index(name))] = reader
    return readers


def draw_edges(
    n_edges: Sequence[int], size: int, balance: float | int, most: float | int, device: torch.device | None = None
) -> list[Int[Tensor, " P"]]:
    """Numbers of sampled edges of each metaedge, none twice, by torch's global generator.

    Args:
        n_edges: Edges of each metaedge.
        size: Edges in all, or fewer where ``most`` binds.
        balance: A metaedge's share goes with (its edges) ** balance.
        most: Share of a metaedge's edges that are drawn at most.
        device: Of the numbers.
    """
    share = [edges**balance if edges else 0.0 for edges in n_edges]
    whole = sum(share) or 1.0
    wanted = [min(round(size * part / whole), int(most * edges)) for part, edges in zip(share, n_edges, strict=True)]
    return [torch.randperm(edges, device=device)[:count] for edges, count in zip(n_edges, wanted, strict=True)]


class StepGraph:
    """Vectors of the nodes of a step, from messages that none of its links takes part in.

    Args:
        graph: The message graph.
        fan_outs: Edges read into a node at each hop; none reads the whole graph.
    """

    def __init__(self, graph: TypedGraph, fan_outs: Sequence[int] | None) -> None:
        self.graph, self.fan_outs = graph, fan_outs
        self.sampler: NeighborSampler | None = None

    def encode(
        self, encoder: TypedEncoder, code_P: Int[Tensor, " P"], number_P: Int[Tensor, " P"], node_n: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "M D"], Sequence[int], Int[Tensor, " N"], list[CSR]]:
        """Encode the graph without some edges.

        Args:
            encoder: Makes the vectors.
            code_P: Metaedges of the edges that are left out [P].
            number_P: Their numbers [P]; they are left out in both directions.
            node_n: The nodes whose vectors are read.

        Returns:
            z_MD, vectors of all nodes or of the sampled ones; their bounds by kind; the row of each node of the graph
            in them [N], meaningless for a node that was not sampled; and the matrices of all relations, whole but for
            the edges that are left out [R].
        """
        weights, bounds = self.graph.weights_without(code_P, number_P), list(self.graph.bounds)
        csrs = self.graph.csrs(weights)
        degree_NR = encoder.degrees(csrs)
        row_N = torch.arange(len(self.graph), device=node_n.device)
        if self.fan_outs is None:
            return encoder(csrs, bounds, degree_NR), bounds, row_N, csrs
        if self.sampler is None:  # made here and not before: now the graph is on its device
            self.sampler = NeighborSampler(self.graph)
        part = self.sampler.sample(node_n.unique(), self.fan_outs, weights=weights)
        row_N[part.node_M] = torch.arange(len(part.node_M), device=node_n.device)
        degree_MR = None if degree_NR is None else degree_NR[part.node_M]
        return encoder(part.csrs, part.bounds, degree_MR, part.node_M), part.bounds, row_N, csrs


RANKED = 100
"""Held-out links a metaedge that are ranked after each epoch."""


@dataclass(frozen=True, eq=False)
class _Step:
    """What one training step reads: links, similar nodes, and the vectors of all nodes they name."""

    links: list[LinkDraw]
    targets: list[LinkDraw]
    similar: list[tuple[Tensor, ...]]  # of each kind the nodes i, j and k of InfoNCE
    look: Callable[[Tensor], Tensor]
    z_MD: Tensor
    bounds: Sequence[int]
    scores: LinkScores


class HGTEmbedder(WildTypeModel):
    r"""Node embeddings by typed attention over the message graph, read by DistMult with node biases.

    Where ``walk_pairs`` allows, walks between the two ends add to the log-odds (``WalkScores``); embeddings hold none.

    A training step takes its links out of the messages, so none is read off the graph: the positives of its batch and
    ``edge_sample_size`` further edges. Terms: ``phenotype``, BCE on the batch's candidates; ``target``, its positives
    told from shared negatives; ``walk``, the same by walks alone; ``link``, the further edges of all metaedges;
    ``contrastive``, InfoNCE over nodes with alike training neighbors; with ``variance`` the hinge on spread. A term of
    no parts is left out.

    Args:
        spec: With the message graph and the supervised metaedges.
        inputs: See ``TypedEncoder``, as are embedding, hidden, layers, heads, residual, jump, degrees,
            embedding_sd and recompute.
        dropout: Share of the embeddings' and layers' entries dropped in training.
        node_bias: A bias a node, metaedge and end.
        edge_sample_size: Edges of all metaedges that enter ``link`` in a step; 0 leaves the term out.
        edge_balance: 1 samples metaedges in proportion to their edges, 0 all alike.
        mask_share: At most this share of a metaedge's edges is sampled in a step, so messages remain.
        negatives: K, negatives that the links of a metaedge share, at either end.
        matched_share: Of them, in proportion to degree.
        link_loss: ``bce`` or ``softmax``, see ``LinkTerm``.
        contrastive_kinds: Kinds whose similar nodes attract; by default the ends of the supervised metaedges.
        contrastive_above: Jaccard index of the neighbors that makes nodes similar.
        contrastive_temperature: See ``InfoNCE``.
        variance: Whether the hinge on spread is a term.
        fan_outs: In training, edges read into each node at each hop; none reads all. Evaluation reads all.
        walk_pairs: Supervised metaedges of at most so many pairs of nodes are scored by walks too; 0: none.
        walk_steps: Steps of a walk at most.
        walk_hidden: Width of the perceptron that reads walks.
        health: From where on a kind's vectors count as healthy, see ``TrainingBounds``.
        optimizer, scheduler, loss_weights: See ``Model``.

    Raises:
        InputError: Data that are no links, an unknown kind, a metaedge without any edge left, fan-outs that are not one
            a layer.
    """

    reads = KnowledgeGraphSpec
    spec: KnowledgeGraphSpec
    score_metrics = ("AUROC", "MRR")
    memory_options: Mapping[str, Any] = {"recompute": False}

    def __init__(
        self,
        spec: KnowledgeGraphSpec,
        *,
        inputs: str = "free",
        embedding: int = 512,
        hidden: int = 256,
        layers: int = 2,
        heads: int = 8,
        residual: float | int = 0.3,
        jump: bool = False,
        degrees: bool = True,
        dropout: float | int = 0.2,
        embedding_sd: float | int = 0.1,
        recompute: bool = False,
        node_bias: bool = True,
        edge_sample_size: int = 5_000,
        edge_balance: float | int = 1.0,
        mask_share: float | int = 0.5,
        negatives: int = 64,
        matched_share: float | int = 0.5,
        link_loss: str = "softmax",
        contrastive_kinds: Sequence[str] | None = None,
        contrastive_above: float | int = 0.1,
        contrastive_temperature: float | int = 0.2,
        variance: bool = False,
        fan_outs: Sequence[int] | None = None,
        walk_pairs: int = 0,
        walk_steps: int = 3,
        walk_hidden: int = 16,
        health: Mapping[str, float | int] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        self.nodes = nodes = message_graph(spec)
        if fan_outs is not None and len(fan_outs) != layers:
            raise InputError(f"model.fan_outs={list(fan_outs)} for {layers} layers: give one number a layer, or null")
        self.edge_sample_size, self.edge_balance, self.mask_share = edge_sample_size, edge_balance, mask_share
        self.bounds, self.variance = [int(bound) for bound in nodes.bounds], variance
        self.health = health_bounds(health)
        sizes = [last - first for first, last in itertools.pairwise(self.bounds)]
        self.encoder = TypedEncoder(
            sizes,
            [(relation.source, relation.target) for relation in nodes.relations],
            inputs=inputs,
            embedding=embedding,
            hidden=hidden,
            layers=layers,
            heads=heads,
            residual=residual,
            jump=jump,
            degrees=degrees,
            dropout=dropout,
            embedding_sd=embedding_sd,
            recompute=recompute,
        )
        symmetric = [code for code, name in enumerate(nodes.metaedges) if name in nodes.symmetric]
        ends = [nodes.ends[name] for name in nodes.metaedges]
        directed = [code for code, (a, b) in enumerate(ends) if a == b and code not in symmetric]
        self.decoder = DistMult(hidden, len(ends), len(nodes) if node_bias else 0, directed, symmetric)
        known = LinkNegatives(
            [nodes.edges(name) for name in nodes.metaedges],
            [(self._span(source), self._span(target)) for source, target in ends],
            symmetric,
            len(nodes),
            matched_share,
        )
        self.link_term = LinkTerm(known, negatives, link_loss)
        self.walks = walk_readers(nodes, spec.supervised, walk_pairs, walk_steps, walk_hidden)
        self.step_graph = StepGraph(nodes, fan_outs)
        alike = alike_kinds(nodes, contrastive_kinds, spec.supervised)
        self._firsts = [self.bounds[kind] for kind in alike]
        self.contrastive = nn.ModuleList(
            InfoNCE(*similar_nodes(nodes, kind, contrastive_above), sizes[kind], contrastive_temperature)
            for kind in alike
        )
        self.val_links = StreamingLinks()
        self._drawn: _Step | None = None

    def encode(self) -> tuple[Float[Tensor, "N D"], LinkScores]:
        """Vectors of all nodes from the whole message graph [N, D], and what scores links on it."""
        csrs = self.nodes.csrs()
        return self.encoder(csrs, self.bounds, self.encoder.degrees(csrs)), self._scores_on(csrs)

    def forward(self, batch: LinkBatch) -> Float[Tensor, "B T"]:
        """Log-odds, the same in every column: the outputs differ in their negatives only."""
        if self.training:
            self._drawn = self._draw(batch)
            look, scores = self._drawn.look, self._drawn.scores
        else:
            z_ND, scores = self.wild_type()
            look = z_ND.__getitem__
        score_B = scores(
            look(batch.source_node), look(batch.target_node), batch.metaedge, batch.source_node, batch.target_node
        )
        return score_B[:, None].expand(-1, len(self.spec.outputs))

    def losses(self, batch: LinkBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The terms, from the encoding that gave the prediction."""
        step, self._drawn = self._drawn or self._draw(batch), None
        terms = super().losses(batch, prediction)
        terms["target"] = self.link_term(step.look, step.scores, step.targets)
        if self.walks:
            alone = LinkScores(None, step.scores.walks, step.scores.weight)
            walked = [draw for draw in step.targets if draw.code in alone.walks]
            terms["walk"] = self.link_term(step.look, alone, walked)
        if step.links:
            terms["link"] = self.link_term(step.look, step.scores, step.links)
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
        at = (batch.target == 1).any(1)
        self.val_links.update(batch.metaedge[at], batch.source_node[at], batch.target_node[at])

    def held_out_scores(self) -> dict[str, Tensor]:
        """``<metaedge>_tail/MRR`` and ``_head``, of at most ``RANKED`` links a metaedge.

        Those of the evaluator, but that test links stay in the lists: the model does not know of them.
        """
        found: dict[str, Tensor] = {}
        links_n3 = self.val_links.compute()
        self.val_links.reset()
        (z_ND, scores), known = self.wild_type(), self.link_term.negatives
        for name in self.spec.supervised:
            code = self.nodes.metaedges.index(name)
            source_P, target_P = links_n3[links_n3[:, 0] == code, 1:].T
            chosen = torch.randperm(len(source_P), generator=torch.Generator().manual_seed(0))[:RANKED]
            chosen = chosen.to(source_P.device)
            rank_P2 = link_ranks(z_ND, scores, known, code, source_P[chosen], target_P[chosen])
            for k, end in enumerate(("tail", "head")):
                found[ScoreName(f"{name}_{end}", "MRR")] = (1 / rank_P2[:, k]).mean()
        return found

    @torch.no_grad()
    def node_embeddings(self) -> Float[Tensor, "N D"]:
        """The final vectors of all nodes, from the whole message graph and without dropout [N, D]."""
        was = self.training
        self.eval()
        try:
            return self.encode()[0]
        finally:
            self.train(was)

    def _span(self, kind: int) -> tuple[int, int]:
        """Where the nodes of a kind stand."""
        return self.bounds[kind], self.bounds[kind + 1]

    def _scores_on(self, csrs: Sequence[CSR]) -> LinkScores:
        """What scores links on a graph."""
        tables = {}
        for code, walks in self.walks.items():
            source, target = self.nodes.ends[self.nodes.metaedges[int(code)]]
            tables[int(code)] = WalkTable(walks(csrs), self.bounds[source], self.bounds[target])
        return LinkScores(self.decoder, tables, self.decoder.weight)

    def _contrastive(self, step: _Step) -> Tensor:
        """Mean over kinds of InfoNCE."""
        terms = [
            term(step.look(i), step.look(j), step.look(k), i - first, k - first)
            for first, term, (i, j, k) in zip(self._firsts, self.contrastive, step.similar, strict=True)
        ]
        return torch.stack(terms).mean()

    def _draw(self, batch: LinkBatch) -> _Step:
        """Links and similar nodes of a step, and the vectors of what they name from the graph without the links."""
        codes, numbers, targets, links = [], [], [], []
        known = self.link_term.negatives
        for code in batch.metaedge.unique().tolist():
            at = (batch.metaedge == code).nonzero()[:, 0]
            number = known.edge_number(code, batch.source_node[at], batch.target_node[at])
            at, number = at[number >= 0], number[number >= 0]  # edges of the graph: no label is read
            targets.append(self.link_term.draw(code, batch.source_node[at], batch.target_node[at]))
            numbers.append(number)
            codes.append(torch.full_like(numbers[-1], code))
        sampled = draw_edges(known.n_edges, self.edge_sample_size, self.edge_balance, self.mask_share, self.device)
        for code, number in enumerate(sampled if self.edge_sample_size else []):
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
        z_MD, bounds, row_N, csrs = self.step_graph.encode(self.encoder, torch.cat(codes), torch.cat(numbers), named_n)
        # Every look gets a gradient as large as what it looks into: so they look into the named rows only.
        z_nD = z_MD[row_N[named_n]]
        row_N[named_n] = torch.arange(len(named_n), device=row_N.device)
        return _Step(links, targets, similar, lambda node: z_nD[row_N[node]], z_MD, bounds, self._scores_on(csrs))
