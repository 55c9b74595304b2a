"""A small network with all that is awkward in one, and what the tests of the graph term compare with."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CellGraph

N, WIDTH = 12, 4
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def network(seed: int = 0, n: int = N, share: float = 0.3, directed: bool = False) -> np.ndarray:
    """Signed weights, self-loops; genes 3 and 7 have no edges; in a directed one 5 only sends."""
    rng = np.random.default_rng(seed)
    matrix = (rng.random((n, n)) < share) * rng.uniform(0.5, 2, (n, n)) * rng.choice([-1, 1], (n, n))
    matrix = matrix if directed else np.triu(matrix) + np.triu(matrix, 1).T
    matrix[3] = matrix[:, 3] = matrix[7] = matrix[:, 7] = 0
    matrix[5] = 0 if directed else matrix[5]
    matrix[0, 1] = matrix[1, 0] = 1
    matrix[4, 4] = matrix[3, 3] = 2
    return matrix.astype(np.float32)


def cell(matrix: np.ndarray, directed: bool = False) -> CellGraph:
    """The network as relation r, with a stored edge of weight 0 beside the others."""
    stored = sp.coo_matrix(matrix)
    row, column = np.argwhere(matrix + np.eye(len(matrix)) == 0)[-1]
    ends = [(row, column)] if directed else [(row, column), (column, row)]
    rows, columns = (np.append(each, extra) for each, extra in zip(stored.coords, zip(*ends, strict=True), strict=True))
    held = sp.csr_matrix((np.append(stored.data, [0] * len(ends)), (rows, columns)), matrix.shape)
    return CellGraph([f"g{i}" for i in range(len(matrix))], {"r": held}, ["r"] if directed else [])


def edges(matrix: np.ndarray, covered: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The dense weights that count, and which genes do."""
    weight = torch.from_numpy(matrix).double().abs().fill_diagonal_(0)
    if covered is None:
        covered = (weight.sum(0) > 0) | (weight.sum(1) > 0)
    return weight * covered * covered[:, None], covered


def tensors(*shape: int, size: float = 1.0, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    return [(size * each).requires_grad_() for each in drawn]


def lse_of(q_TD, k_TD):
    return torch.logsumexp(q_TD @ k_TD.T / q_TD.shape[1] ** 0.5, 1)


def assert_same(ours, wanted, inputs, **tolerance):
    tolerance = tolerance or TIGHT
    torch.testing.assert_close(ours, wanted, **tolerance)
    found = torch.autograd.grad(ours, inputs, retain_graph=True)
    for mine, truth in zip(found, torch.autograd.grad(wanted, inputs, retain_graph=True), strict=True):
        torch.testing.assert_close(mine, truth, **tolerance)
