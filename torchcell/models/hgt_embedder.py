"""HGT embeddings of a knowledge graph: every node a vector, links scored between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError, near, some
from torchcell.datamodules.links import LinkBatch
from torchcell.datamodules.spec import Spec
from torchcell.graph.typed_graph import TypedGraph
from torchcell.models.base import LossWeights
from torchcell.models.wild_type import WildTypeModel
from torchcell.nn.contrastive import InfoNCE
from torchcell.nn.dist_mult import DistMult
from torchcell.nn.link_negatives import LinkNegatives
from torchcell.nn.link_term import LinkDraw, LinkTerm
from torchcell.nn.similar_nodes import similar_nodes
from torchcell.nn.step_graph import StepGraph, draw_edges
from torchcell.nn.typed_encoder import TypedEncoder
from torchcell.nn.variance_hinge import variance_hinge


@dataclass(frozen=True, eq=False)
class _Step:
    """What one training step reads: links, similar nodes, and the vectors of all nodes they name."""

    links: list[LinkDraw]
    targets: list[LinkDraw]
    similar: list[tuple[Tensor, ...]]  # of each kind the nodes i, j and k of InfoNCE
    look: Callable[[Tensor], Tensor]
    z_MD: Tensor
    bounds: Sequence[int]


class HGTEmbedder(WildTypeModel):
    r"""Node embeddings by typed attention over the message graph, read by DistMult with node biases.

    A training step takes its links out of the messages, so none is read off the graph: the positives of its batch and
    ``edge_sample_size`` further edges. Terms: ``phenotype``, BCE on the batch's candidates; ``target``, its positives
    told from shared negatives; ``link``, the further edges of all metaedges likewise; ``contrastive``, InfoNCE over
    nodes with alike training neighbours; with ``variance`` the hinge on spread. A term of no parts is left out.

    Args:
        spec: With the message graph and the supervised metaedges among its extras.
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
        contrastive_above: Jaccard index of the neighbours that makes nodes similar.
        contrastive_temperature: See ``InfoNCE``.
        variance: Whether the hinge on spread is a term.
        fan_outs: In training, edges read into each node at each hop; none reads all. Evaluation reads all.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.

    Raises:
        InputError: Data that are no links, an unknown kind, a metaedge without any edge left, fan-outs that are not one
            a layer.
    """

    def __init__(
        self,
        spec: Spec,
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
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        self.nodes = nodes = _message_graph(spec)
        if fan_outs is not None and len(fan_outs) != layers:
            raise InputError(f"model.fan_outs={list(fan_outs)} for {layers} layers: give one number a layer, or null")
        self.edge_sample_size, self.edge_balance, self.mask_share = edge_sample_size, edge_balance, mask_share
        self.bounds, self.variance = [int(bound) for bound in nodes.bounds], variance
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
        self.step_graph = StepGraph(nodes, fan_outs)
        alike = _kinds(nodes, contrastive_kinds, spec.extras["supervised"])
        self._firsts = [self.bounds[kind] for kind in alike]
        self.contrastive = nn.ModuleList(
            InfoNCE(*similar_nodes(nodes, kind, contrastive_above), sizes[kind], contrastive_temperature)
            for kind in alike
        )
        self._drawn: _Step | None = None

    def encode(self) -> Float[Tensor, "N D"]:
        """Vectors of all nodes from the whole message graph [N, D]."""
        csrs = self.nodes.csrs()
        return self.encoder(csrs, self.bounds, self.encoder.degrees(csrs))

    def forward(self, batch: LinkBatch) -> Float[Tensor, "B T"]:
        """Log-odds, the same in every column: the outputs differ in their negatives only."""
        if self.training:
            self._drawn = self._draw(batch)
            look = self._drawn.look
        else:
            look = self.wild_type().__getitem__
        score_B = self.decoder(
            look(batch.source_node), look(batch.target_node), batch.metaedge, batch.source_node, batch.target_node
        )
        return score_B[:, None].expand(-1, len(self.spec.outputs))

    def losses(self, batch: LinkBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The terms, from the encoding that gave the prediction."""
        step, self._drawn = self._drawn or self._draw(batch), None
        terms = super().losses(batch, prediction)
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
        score_B = self(batch)[:, 0]
        positive, negative = (batch.target == 1).any(1), (batch.target == 0).any(1)
        if not (positive.any() and negative.any()):
            return {}
        softplus = nn.functional.softplus
        return {"link_bce": softplus(-score_B[positive]).mean() + softplus(score_B[negative]).mean()}

    @torch.no_grad()
    def node_embeddings(self) -> Float[Tensor, "N D"]:
        """The final vectors of all nodes, from the whole message graph and without dropout [N, D]."""
        was = self.training
        self.eval()
        try:
            return self.encode()
        finally:
            self.train(was)

    def _span(self, kind: int) -> tuple[int, int]:
        """Where the nodes of a kind stand."""
        return self.bounds[kind], self.bounds[kind + 1]

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
            at = ((batch.metaedge == code) & (batch.target == 1).any(1)).nonzero()[:, 0]
            source, target = batch.source_node[at], batch.target_node[at]
            targets.append(self.link_term.draw(code, source, target))
            number = known.edge_number(code, source, target)
            numbers.append(number[number >= 0])
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
        z_MD, bounds, row_N = self.step_graph.encode(
            self.encoder, torch.cat(codes), torch.cat(numbers), torch.cat(named)
        )
        return _Step(links, targets, similar, lambda node: z_MD[row_N[node]], z_MD, bounds)


def _message_graph(spec: Spec) -> TypedGraph:
    """The graph of the spec, with edges to train on."""
    if "knowledge_graph" not in spec.extras:
        raise InputError("HGTEmbedder reads a knowledge graph; choose data of links, e.g. data=hetionet_core")
    nodes = TypedGraph.from_plain(spec.extras["knowledge_graph"])
    empty = [name for name in spec.extras["supervised"] if not len(nodes.edges(name)[0])]
    if empty:
        raise InputError(f"no edges of {some(empty)} are left to train on; change the split or data.metaedges")
    return nodes


def _kinds(nodes: TypedGraph, chosen: Sequence[str] | None, supervised: Sequence[str]) -> list[int]:
    """Numbers of the kinds whose similar nodes attract."""
    if chosen is None:
        return sorted({kind for name in supervised for kind in nodes.ends[name]})
    for name in chosen:
        if name not in nodes.kinds:
            hint = near(name, nodes.kinds) or list(nodes.kinds)
            raise InputError(f"model.contrastive_kinds: no kind {name!r}; the nearest are {hint}")
    return [nodes.kinds.index(name) for name in chosen]
