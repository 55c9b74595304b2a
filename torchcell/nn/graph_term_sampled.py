"""The log-sum-exp of some rows from all their neighbours and a sample of the other genes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torchcell.nn.graph_term_target import GraphTarget

ROWS, EDGES = 512, 65_536
"""Rows, and edges unless one row has more, whose scores exist at once."""


def sampled_log_sum_exp(
    target: GraphTarget,
    q_SD: Float[Tensor, "S D"],
    k_ND: Float[Tensor, "N D"],
    row_S: Int[Tensor, " S"],
    column_M: Int[Tensor, " M"],
    scale: float,
) -> Float[Tensor, " S"]:
    r"""An estimate of the log-sum-exp over the covered genes, exact if ``column_M`` is all of them.

    .. math::
        \ell_i = \log \Big( \sum_{j \in N(i)} e^{s_{ij}}
            + \frac{C - |N(i)|}{|M \setminus N(i)|} \sum_{j \in M \setminus N(i)} e^{s_{ij}} \Big)

    A few rows at a time, computed again in backward.

    Args:
        target: Whose neighbours N(i) and C covered genes.
        q_SD: Queries of the rows [S, D].
        k_ND: Keys of all genes [N, D].
        row_S: Which genes the rows are [S].
        column_M: The sample M of covered genes, shared by all rows [M]; neighbours in it are not counted twice.
        scale: Of the scores.

    Returns:
        [S]; a row without a sampled non-neighbour counts its neighbours alone.
    """
    place_N, parts = target.place(column_M), []
    for rows in _chunks(target.degree_N[row_S]):
        given = (target, q_SD[rows], k_ND, row_S[rows], column_M, place_N, scale)
        parts.append(checkpoint(_log_sum_exp, *given, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def _log_sum_exp(
    target: GraphTarget, q_SD: Tensor, k_ND: Tensor, row_S: Tensor, column_M: Tensor, place_N: Tensor, scale: float
) -> Tensor:
    rows = target.slice(row_S)
    degree_S = target.degree_N[row_S]
    whose_E = torch.repeat_interleave(degree_S)
    edge_E = (q_SD.index_select(0, whose_E) * k_ND.index_select(0, rows.indices)).sum(-1) * scale
    near_SM = target.neighbours(row_S, place_N, len(column_M))
    left_S = (~near_SM).sum(1)
    # Where none is left all scores are -inf, whatever is added to them.
    weight_S = ((len(target.column_C) - degree_S) / left_S.clamp(min=1)).to(q_SD.dtype)
    other_SM = (q_SD @ k_ND[column_M].T * scale + weight_S.log()[:, None]).masked_fill(near_SM, -torch.inf)
    top_S = other_SM.detach().amax(1).scatter_reduce(0, whose_E, edge_E.detach(), "amax")
    total_S = (other_SM - top_S[:, None]).exp().sum(1).index_add(0, whose_E, (edge_E - top_S[whose_E]).exp())
    return top_S + total_S.log()


def _chunks(degree_S: Tensor) -> Iterator[slice]:
    """Runs of at most ROWS rows with at most EDGES edges, or of one row."""
    first, edges = 0, 0
    for row, degree in enumerate(degree_S.tolist()):
        if row > first and (row - first == ROWS or edges + degree > EDGES):
            yield slice(first, row)
            first, edges = row, 0
        edges += degree
    yield slice(first, len(degree_S))
