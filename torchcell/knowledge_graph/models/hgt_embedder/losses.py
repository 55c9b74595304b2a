"""Loss terms of node embeddings: links, contrast, similar nodes, variance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.models.hgt_embedder.sampling import LinkNegatives
from torchcell.knowledge_graph.typed_graph import TypedGraph

CHUNK = 2_048
"""Rows whose common neighbors are counted at once."""


def similar_pairs(
    neighbors: sp.csr_matrix, above: float | int, most: int = 32
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Ordered pairs of rows whose neighbors have a Jaccard index above a threshold.

    Args:
        neighbors: A row a node [n, M], nonzero for a neighbor.
        above: The Jaccard index |A and B| / |A or B| that a pair must exceed.
        most: Pairs a row at most, those of the largest index; ties by position.

    Returns:
        first and second [P], int64, sorted by first; both orders of a pair stand there unless ``most`` cut one.
    """
    table = sp.csr_matrix(neighbors, dtype=np.float32, copy=True)
    table.sum_duplicates()
    table.data[:] = 1
    size, first, second = np.diff(table.indptr).astype(np.float32), [], []
    for start in range(0, table.shape[0], CHUNK):
        common = (table[start : start + CHUNK] @ table.T).tocoo()
        row, column = common.row.astype(np.int64) + start, common.col.astype(np.int64)
        jaccard = common.data / (size[row] + size[column] - common.data)
        alike = (jaccard > above) & (row != column)
        row, column, jaccard = row[alike], column[alike], jaccard[alike]
        order = np.lexsort((column, -jaccard, row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        first.append(row[rank < most])
        second.append(column[rank < most])
    return np.concatenate(first), np.concatenate(second)


class InfoNCE(nn.Module):
    r"""Mean over sampled similar pairs (i, j) of -log softmax_j (cos(z_i, z_k) / tau).

    The softmax runs over j and sampled nodes k of the node type that are not similar to i (van den Oord et al. 2018,
    arXiv:1807.03748): at most near log(1 + K), which is also what a node type collapsed to one point has.

    Args:
        first: Similar ordered pairs [P], int64 positions within the node type.
        second: Their other end [P].
        n_nodes: Nodes of the type.
        temperature: tau.
        anchors: S, pairs a step, or all if there are fewer.
        negatives: K, nodes a step, shared by the pairs.
    """

    def __init__(
        self,
        first: Int[np.ndarray, " P"],
        second: Int[np.ndarray, " P"],
        n_nodes: int,
        temperature: float | int = 0.2,
        anchors: int = 512,
        negatives: int = 256,
    ) -> None:
        super().__init__()
        self.n_nodes, self.temperature, self.anchors, self.negatives = n_nodes, temperature, anchors, negatives
        self.first: Tensor
        self.second: Tensor
        self.keys: Tensor
        self.register_buffer("first", torch.from_numpy(first), persistent=False)
        self.register_buffer("second", torch.from_numpy(second), persistent=False)
        self.register_buffer("keys", torch.from_numpy(np.sort(first * n_nodes + second)), persistent=False)

    def draw(self) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"], Int[Tensor, " K"]]:
        """Nodes i, j and k of this step, by torch's global generator; none for a node type without similar nodes."""
        device, n_pairs = self.first.device, len(self.first)
        pair_S = torch.randint(max(n_pairs, 1), (min(self.anchors, n_pairs),), device=device)
        return self.first[pair_S], self.second[pair_S], torch.randint(self.n_nodes, (self.negatives,), device=device)

    def forward(
        self,
        first_SD: Float[Tensor, "S D"],
        second_SD: Float[Tensor, "S D"],
        other_KD: Float[Tensor, "K D"],
        first_S: Int[Tensor, " S"],
        other_K: Int[Tensor, " K"],
    ) -> Float[Tensor, ""]:
        """The term.

        Args:
            first_SD: Vectors of the nodes i [S, D].
            second_SD: Of the nodes j [S, D].
            other_KD: Of the nodes k [K, D].
            first_S: Positions of i within the node type [S].
            other_K: Positions of k [K].

        Returns:
            A scalar; 0 without pairs.
        """
        if not len(first_S):
            return other_KD.sum() * 0
        anchor_SD, second_SD, other_KD = (
            nn.functional.normalize(each, dim=-1) for each in (first_SD, second_SD, other_KD)
        )
        pull_S = (anchor_SD * second_SD).sum(-1) / self.temperature
        push_SK = (anchor_SD @ other_KD.T / self.temperature).masked_fill(self._similar(first_S, other_K), -torch.inf)
        return (torch.cat([pull_S[:, None], push_SK], dim=1).logsumexp(1) - pull_S).mean()

    def _similar(self, first_S: Tensor, other_K: Tensor) -> Tensor:
        """Which nodes k are similar to a node i, or are it [S, K]."""
        wanted_SK = first_S[:, None] * self.n_nodes + other_K
        at_SK = torch.searchsorted(self.keys, wanted_SK).clamp(max=len(self.keys) - 1)
        return (self.keys[at_SK] == wanted_SK) | (first_S[:, None] == other_K)


Look = Callable[[Tensor], Tensor]
"""Node numbers [n] -> their vectors [n, D]."""


class LinkScorer:
    """What gives links log-odds: ``DistMult``.

    A call takes source_PD, target_PD, edge types, source and target numbers [P], and gives [P]; ``grid`` gives those
    of one edge type between each of P sources and each of K targets [P, K].
    """

    __call__: Callable[..., Any]
    weight: Any

    def grid(self, source_PD: Tensor, target_KD: Tensor, code: int, source_P: Tensor, target_K: Tensor) -> Tensor:
        """Log-odds [P, K]."""
        raise NotImplementedError("what scores links must define grid")


class LinkDraw(NamedTuple):
    """P links of one edge type and what they are compared with.

    Attributes:
        code: Of the edge type.
        source: Node numbers [P].
        target: Node numbers [P].
        heads: Nodes that replace the source [K].
        tails: Nodes that replace the target [K].
    """

    code: int
    source: Tensor
    target: Tensor
    heads: Tensor
    tails: Tensor

    @property
    def nodes(self) -> Int[Tensor, " n"]:
        """All nodes whose vectors the term reads."""
        return torch.cat(self[1:])


class LinkTerm(nn.Module):
    r"""How badly links are separated from shared negatives, mean over links and over the two ends.

    ``bce``: softplus(-s) of the link + the mean over its negatives of softplus(s), 2 ln 2 at constant scores; the
    prior of log-odds made so is one half. ``softmax``: -log of the link's share of exp(s) among itself and its
    negatives, log(1 + K) at constant scores, which is a bound on the log of its rank. A negative that is a known
    link takes no part.

    Args:
        negatives: Where they are drawn, and which pairs are known.
        count: K, negatives a link and end; as many as the kind has nodes or more: each node once.
        form: ``bce`` or ``softmax``.
    """

    def __init__(self, negatives: LinkNegatives, count: int, form: str) -> None:
        super().__init__()
        if form not in ("bce", "softmax"):
            raise InputError(f"model.losses.links is 'bce' or 'softmax', not {form!r}")
        self.negatives, self.count, self.form = negatives, count, form

    def draw(self, code: int, source: Int[Tensor, " P"], target: Int[Tensor, " P"]) -> LinkDraw:
        """The negatives of P links of one edge type."""
        return LinkDraw(code, source, target, *(self._others(code, end) for end in (0, 1)))

    def forward(self, look: Look, decoder: LinkScorer, draws: Sequence[LinkDraw]) -> Float[Tensor, ""]:
        """The term over the links of several edge types, each link counting the same.

        Args:
            look: Vectors of nodes by number.
            decoder: Scores them.
            draws: The links; without any the term is 0.
        """
        whole = [self._sum(look, decoder, draw) for draw in draws if len(draw.source)]
        n_links = sum(len(draw.source) for draw in draws)
        return torch.stack(whole).sum() / n_links if whole else decoder.weight.sum() * 0

    def _others(self, code: int, end: int) -> Tensor:
        first, last = self.negatives.ranges[code][end]
        if last - first <= self.count:
            return torch.arange(first, last, device=self.negatives.get_buffer(f"key{code}").device)
        return self.negatives.draw(code, end, self.count)

    def _sum(self, look: Look, decoder: LinkScorer, draw: LinkDraw) -> Tensor:
        source_PD, target_PD = look(draw.source), look(draw.target)
        code_P = torch.full_like(draw.source, draw.code)
        link_P = decoder(source_PD, target_PD, code_P, draw.source, draw.target)
        tail_PK = decoder.grid(source_PD, look(draw.tails), draw.code, draw.source, draw.tails)
        head_PK = decoder.grid(look(draw.heads), target_PD, draw.code, draw.heads, draw.target).T
        known_tail = self._known(draw.code, draw.source[:, None], draw.tails[None])
        known_head = self._known(draw.code, draw.heads[None], draw.target[:, None])
        ends = ((tail_PK, known_tail), (head_PK, known_head))
        return torch.stack([self._loss(link_P, other_PK, known) for other_PK, known in ends]).mean(0).sum()

    def _known(self, code: int, source: Tensor, target: Tensor) -> Tensor:
        """Which pairs are known links [P, K]."""
        return self.negatives.known(code, *torch.broadcast_tensors(source, target))

    def _loss(self, link_P: Tensor, other_PK: Tensor, known_PK: Tensor) -> Tensor:
        """Of each link against its negatives at one end [P]."""
        if self.form == "softmax":
            other_PK = other_PK.masked_fill(known_PK, -torch.inf)
            return torch.cat([link_P[:, None], other_PK], dim=1).logsumexp(1) - link_P
        free_PK = (~known_PK).to(other_PK.dtype)
        mean_P = (nn.functional.softplus(other_PK) * free_PK).sum(1) / free_PK.sum(1).clamp(min=1)
        return nn.functional.softplus(-link_P) + mean_P


def similar_nodes(
    graph: TypedGraph, node_type: int, above: float | int, most: int = 32
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Pairs of nodes of one type by the Jaccard index of their neighbors, whatever the edge type.

    Args:
        graph: The message graph; a held-out link makes no neighbor.
        node_type: Number of the node type.
        above: See ``similar_pairs``, as is ``most``.

    Returns:
        first and second [P], int64 positions within the node type.
    """
    bounds = [int(bound) for bound in graph.bounds]
    shape = bounds[node_type + 1] - bounds[node_type], bounds[-1]
    neighbors = sp.csr_matrix(shape, dtype=np.float32)
    for r, relation in enumerate(graph.relations):
        if relation.target == node_type:
            indptr, indices, weight = (part.cpu().numpy() for part in graph.csr(r))
            place = indices.astype(np.int64) + bounds[relation.source]
            neighbors = neighbors + sp.csr_matrix((weight, place, indptr), shape=shape)
    return similar_pairs(neighbors, above, most)


def variance_hinge(z_ND: Float[Tensor, "N D"], bounds: Sequence[int], least: float = 1.0) -> Float[Tensor, ""]:
    r"""Mean over node types and dimensions of max(0, least - sd), the sd being that over the nodes of the type.

    The variance term of VICReg (Bardes, Ponce and LeCun, ICLR 2022, arXiv:2105.04906), one batch being a node type.

    Args:
        z_ND: Vectors, the nodes ordered by node type [N, D].
        bounds: Node type k occupies the rows bounds[k] to bounds[k + 1]; one with fewer than 2 nodes has no sd.
        least: The sd below which a dimension is penalised, in the units of z.

    Returns:
        A scalar: ``least`` when all nodes of each type are one point, 0 when no dimension is poor.
    """
    # The small number keeps the root's slope finite where a node type has collapsed to one point.
    lacking = [
        torch.relu(least - (z_ND[first:last].var(0) + 1e-8).sqrt()).mean()
        for first, last in itertools.pairwise(bounds)
        if last - first > 1
    ]
    return torch.stack(lacking).mean() if lacking else z_ND.sum() * 0
