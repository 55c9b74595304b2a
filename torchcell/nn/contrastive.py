"""Nodes of one kind that share neighbours attract each other: similar pairs, and InfoNCE over them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK = 2_048
"""Rows whose common neighbours are counted at once."""


def similar_pairs(
    neighbours: sp.csr_matrix, above: float | int, most: int = 32
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Ordered pairs of rows whose neighbours have a Jaccard index above a threshold.

    Args:
        neighbours: A row a node [n, M], nonzero for a neighbour.
        above: The Jaccard index |A and B| / |A or B| that a pair must exceed.
        most: Pairs a row at most, those of the largest index; ties by position.

    Returns:
        first and second [P], int64, sorted by first; both orders of a pair stand there unless ``most`` cut one.
    """
    table = sp.csr_matrix(neighbours, dtype=np.float32, copy=True)
    table.sum_duplicates()
    table.data[:] = 1
    size, first, second = np.diff(table.indptr).astype(np.float32), [], []
    for start in range(0, table.shape[0], CHUNK):
        common = (table[start : start + CHUNK] @ table.T).tocoo()
        row, column = common.row.astype(np.int64) + start, common.col.astype(np.int64)
        jaccard = common.data / (size[row] + size[column] - common.data)
        held = (jaccard > above) & (row != column)
        row, column, jaccard = row[held], column[held], jaccard[held]
        order = np.lexsort((column, -jaccard, row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        first.append(row[rank < most])
        second.append(column[rank < most])
    return np.concatenate(first), np.concatenate(second)


class InfoNCE(nn.Module):
    r"""Mean over sampled similar pairs (i, j) of -log softmax_j (cos(z_i, z_k) / tau).

    The softmax runs over j and sampled nodes k of the kind that are not similar to i (van den Oord et al. 2018,
    arXiv:1807.03748): at most near log(1 + K), which is also what a kind collapsed to one point has.

    Args:
        first: Similar ordered pairs [P], int64 positions within the kind.
        second: Their other end [P].
        n_nodes: Nodes of the kind.
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
        """Nodes i, j and k of this step, by torch's global generator; none for a kind without similar nodes."""
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
            first_S: Positions of i within the kind [S].
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
        asked_SK = first_S[:, None] * self.n_nodes + other_K
        at_SK = torch.searchsorted(self.keys, asked_SK).clamp(max=len(self.keys) - 1)
        return (self.keys[at_SK] == asked_SK) | (first_S[:, None] == other_K)
