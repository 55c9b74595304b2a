"""Chunked attention over edges against one dense softmax, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tests.nn.largest_tensor import LargestTensor
from torchcell.graph.cell_graph import CSR
from torchcell.nn import sparse as module
from torchcell.nn.sparse import STRATEGIES, Block, block_softmax, edge_softmax

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
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_equals_a_dense_softmax(monkeypatch, chunk, missing, strategy):
    monkeypatch.setattr(module, "CHUNK", chunk)
    keep = torch.ones(M, dtype=torch.float64)
    keep[missing] = 0
    matrices, tensors = relations(), inputs()
    ours = edge_softmax([csr(m) for m in matrices], *tensors, keep, strategy)
    wanted = dense(matrices, *tensors, keep)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    seed = torch.randn_like(wanted)
    for mine, reference in zip(
        torch.autograd.grad((ours * seed).sum(), tensors),
        torch.autograd.grad((wanted * seed).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_large_scores_do_not_overflow(strategy):
    query, key, value = inputs()
    ours = edge_softmax([csr(m) for m in relations()], 1e4 * query, key, value, strategy=strategy)
    torch.testing.assert_close(ours, dense(relations(), 1e4 * query, key, value), rtol=1e-8, atol=1e-8)


def test_a_target_without_edges_gets_zeros_and_finite_gradients():
    tensors = inputs()
    out = edge_softmax([csr(m) for m in relations()], *tensors)
    assert (out[3] == 0).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), tensors))


def blocks_and_inputs(seed: int = 1) -> tuple[list[tuple[np.ndarray, slice, slice]], list[torch.Tensor]]:
    """Three relations between slices of 8 sources and 7 targets, one without edges, and a map of each."""
    rng = np.random.default_rng(seed)
    slices = [(slice(0, 5), slice(2, 7)), (slice(5, 8), slice(0, 3)), (slice(2, 8), slice(0, 7))]
    slices.append((slice(0, 8), slice(3, 7)))
    parts = []
    for number, (source, target) in enumerate(slices):
        shape = (target.stop - target.start, source.stop - source.start)
        parts.append((rng.random(shape) < (0 if number == 2 else 0.5), source, target))
    torch.manual_seed(seed)
    shapes = (7, HEADS, WIDTH), (8, HEADS, WIDTH), (8, HEADS, WIDTH), *((4, HEADS, WIDTH, WIDTH),) * 2
    return parts, [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("chunk", [3, None], ids="chunk={}".format)
def test_blocks_equal_one_dense_softmax_over_mapped_sources(monkeypatch, strategy, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    parts, tensors = blocks_and_inputs()
    query, key, value, attend, send = tensors
    ours = block_softmax([Block(csr(m * 1.0), *at) for m, *at in parts], *tensors, strategy=strategy)
    whole = []
    for matrix, source, target in parts:
        whole.append(np.zeros((7, 8)))
        whole[-1][target, source] = matrix
    wanted = dense(whole, query, *(torch.einsum("mhd,rhde->rmhe", *pair) for pair in ((key, attend), (value, send))))
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)
    seed = torch.randn_like(wanted)
    found = (torch.autograd.grad((each * seed).sum(), tensors) for each in (ours, wanted))
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


def test_nothing_as_large_as_edges_times_width_is_made(monkeypatch):
    """A third of the largest edge tensor is far more than the nodes' and a chunk's own."""
    monkeypatch.setattr(module, "CHUNK", 1_000)
    rng = np.random.default_rng(0)
    n, width = 150, 16
    matrix = (rng.random((n, n)) < 0.5) * 1.0
    for strategy in STRATEGIES:
        tensors = [torch.randn(n, 1, width, requires_grad=True) for _ in range(3)]
        maps = [torch.randn(2, 1, width, width, requires_grad=True) for _ in range(2)]
        with LargestTensor() as largest:
            everywhere = slice(0, n)
            block_softmax(
                [Block(csr(matrix), everywhere, everywhere)] * 2, *tensors, *maps, strategy=strategy
            ).sum().backward()
        assert 0 < largest.numel < matrix.sum() * width / 3
