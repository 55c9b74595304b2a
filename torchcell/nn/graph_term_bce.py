"""Binary cross-entropy of a head's scores on the edges of a relation against pairs that are no edges."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from torchcell.nn.graph_term_target import GraphTarget

PAIRS = 4_096
"""Edges a step, and as many pairs that are none."""

ROWS = 512
"""Rows whose scores exist at once where all pairs are looked at."""

ROUNDS = 16
"""How often pairs are drawn until enough of them are no edges; in a nearly complete relation few are found."""


def sampled_bce(
    target: GraphTarget, q_ND: Float[Tensor, "N D"], k_ND: Float[Tensor, "N D"], scale: float
) -> Float[Tensor, ""]:
    r"""On up to 4,096 edges E and as many other pairs F of covered genes, from torch's global generator.

    .. math::
        \tfrac12 \Big( \frac{1}{|E|} \sum_{ij \in E} \log(1 + e^{-s_{ij}})
            + \frac{1}{|F|} \sum_{ij \in F} \log(1 + e^{s_{ij}}) \Big), \quad s_{ij} = s \, q_i \cdot k_j
    """
    row_P, column_P = _edges(target)
    loss = softplus(-_score(q_ND, k_ND, row_P, column_P, scale)).mean()
    row_P, column_P = _other_pairs(target, len(row_P))
    if len(row_P):
        loss = loss + softplus(_score(q_ND, k_ND, row_P, column_P, scale)).mean()
    return loss / 2


def exact_bce(
    target: GraphTarget, q_ND: Float[Tensor, "N D"], k_ND: Float[Tensor, "N D"], scale: float
) -> Float[Tensor, ""]:
    """The same over all edges and all other pairs of two covered genes, some rows at a time."""
    columns, place_N = target.column_C, target.place(target.column_C)
    edge, other = q_ND.new_zeros(()), q_ND.new_zeros(())
    for row_S in columns.split(ROWS):
        given = (target, q_ND, k_ND, row_S, place_N, scale)
        parts = checkpoint(_sums, *given, use_reentrant=False, preserve_rng_state=False)
        edge, other = edge + parts[0], other + parts[1]
    n_others = len(columns) * (len(columns) - 1) - target.n_edges
    return (edge / target.n_edges + other / max(n_others, 1)) / 2


def _sums(
    target: GraphTarget, q_ND: Tensor, k_ND: Tensor, row_S: Tensor, place_N: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    score_SC = q_ND[row_S] @ k_ND[target.column_C].T * scale
    near_SC = target.neighbours(row_S, place_N, len(target.column_C))
    other_SC = ~near_SC
    other_SC[torch.arange(len(row_S), device=row_S.device), place_N[row_S]] = False
    return softplus(-score_SC[near_SC]).sum(), softplus(score_SC[other_SC]).sum()


def _score(q_ND: Tensor, k_ND: Tensor, row_P: Tensor, column_P: Tensor, scale: float) -> Float[Tensor, " P"]:
    return (q_ND[row_P] * k_ND[column_P]).sum(-1) * scale


def _edges(target: GraphTarget) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """All edges if they are few; otherwise drawn with replacement, which costs the same for any relation."""
    indptr, indices, _ = target.csr()
    n_edges, device = target.n_edges, indices.device
    few = n_edges <= PAIRS
    edge_P = torch.arange(n_edges, device=device) if few else torch.randint(n_edges, (PAIRS,)).to(device)
    return torch.searchsorted(indptr, edge_P.int(), right=True) - 1, indices[edge_P].long()


def _other_pairs(target: GraphTarget, n: int) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Up to n pairs of two covered genes that are no edges."""
    columns = target.column_C
    found: list[Tensor] = [columns.new_empty(2, 0)]
    missing = 0 if target.n_edges == len(columns) * (len(columns) - 1) else n
    for _ in range(ROUNDS):
        if missing <= 0:
            break
        pair_2P = columns[torch.randint(len(columns), (2, 2 * n)).to(columns.device)]
        wrong_P = (pair_2P[0] == pair_2P[1]) | target.has_edge(pair_2P[0], pair_2P[1])
        found.append(pair_2P[:, ~wrong_P])
        missing -= found[-1].shape[1]
    row_P, column_P = torch.cat(found, 1)[:, :n]
    return row_P, column_P
