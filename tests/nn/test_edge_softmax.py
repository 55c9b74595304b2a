"""Chunked attention over edges against one dense softmax, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CSR
from torchcell.nn import edge_softmax as module
from torchcell.nn.edge_softmax import edge_softmax

N, M, HEADS, WIDTH = 7, 9, 2, 3


def relations(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    matrices = [(rng.random((N, M)) < share) * rng.uniform(0.5, 2, (N, M)) for share in (0.4, 0.2)]
    for matrix in matrices:
        matrix[3] = 0  # a target that no edge reaches
    return matrices


def csr(matrix: np.ndarray) -> CSR:
    held = sp.csr_matrix(matrix)
    return CSR(*(torch.from_numpy(a) for a in (held.indptr, held.indices, held.data.astype(np.float32))))


def dense(matrices, query, key, value, keep=None):
    weight = torch.cat([torch.from_numpy(m.astype(np.float32)).double() for m in matrices], 1)
    if keep is not None:
        weight = weight * keep.repeat(len(matrices))
    score = torch.einsum("nhd,mhd->nhm", query, key.flatten(0, 1)) / WIDTH**0.5
    score = score.masked_fill(weight[:, None] == 0, -1e30)
    raised = weight[:, None] * (score - score.amax(-1, keepdim=True).detach()).exp()
    share = raised / raised.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.einsum("nhm,mhd->nhd", share, value.flatten(0, 1))


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = (N, HEADS, WIDTH), (2, M, HEADS, WIDTH), (2, M, HEADS, WIDTH)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("chunk", [1, 5, 10_000], ids="chunk={}".format)
@pytest.mark.parametrize("missing", [[], [0, 4], list(range(M))], ids="missing={}".format)
def test_equals_a_dense_softmax(monkeypatch, chunk, missing):
    monkeypatch.setattr(module, "CHUNK", chunk)
    keep = torch.ones(M, dtype=torch.float64)
    keep[missing] = 0
    matrices, tensors = relations(), inputs()
    ours = edge_softmax([csr(m) for m in matrices], *tensors, keep)
    wanted = dense(matrices, *tensors, keep)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    seed = torch.randn_like(wanted)
    for mine, reference in zip(
        torch.autograd.grad((ours * seed).sum(), tensors),
        torch.autograd.grad((wanted * seed).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


def test_large_scores_do_not_overflow():
    query, key, value = inputs()
    ours = edge_softmax([csr(m) for m in relations()], 1e4 * query, key, value)
    torch.testing.assert_close(ours, dense(relations(), 1e4 * query, key, value), rtol=1e-8, atol=1e-8)


def test_a_target_without_edges_gets_zeros_and_finite_gradients():
    tensors = inputs()
    out = edge_softmax([csr(m) for m in relations()], *tensors)
    assert (out[3] == 0).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), tensors))
