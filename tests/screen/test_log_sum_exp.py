"""The chunked log-sum-exp against torch's own on the full scores, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.largest_tensor import LargestTensor
from torchcell.screen.models.cell_graph_transformer import attention as module
from torchcell.screen.models.cell_graph_transformer.attention import log_sum_exp


def tensors(n: int, m: int, d: int, size: float = 1.0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [(size * torch.randn(rows, d, dtype=torch.float64)).requires_grad_() for rows in (n, m)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 10), st.floats(0.01, 30))
def test_equals_the_dense_form(n, m, d, chunk, size):
    q, k = tensors(n, m, d, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", chunk)
        ours = log_sum_exp(q, k, 0.3)
        weight = torch.randn_like(ours)
        found = torch.autograd.grad((weight * ours).sum(), (q, k))
    wanted = torch.logsumexp(0.3 * q @ k.T, 1)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    for mine, reference in zip(found, torch.autograd.grad((weight * wanted).sum(), (q, k)), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_scores_in_the_thousands_do_not_overflow():
    q, k = tensors(4, 5, 3, 100.0)
    ours = log_sum_exp(q.float(), k.float(), 1.0)
    torch.testing.assert_close(ours.double(), torch.logsumexp(q @ k.T, 1), rtol=1e-5, atol=1e-2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(ours.sum(), (q, k)))


def test_without_columns_it_is_minus_infinity_and_without_rows_empty():
    q, k = tensors(3, 4, 2)
    assert (log_sum_exp(q, k[:0], 1.0) == -torch.inf).all()
    none = log_sum_exp(q[:0], k, 1.0)
    assert len(none) == 0
    assert (torch.autograd.grad(none.sum(), k)[0] == 0).all()


def test_autocast_does_not_round_it():
    q, k = (each.float() for each in tensors(6, 7, 4))
    with torch.autocast("cpu", torch.bfloat16):
        ours = log_sum_exp(q, k, 1.0)
        (found,) = torch.autograd.grad(ours.sum(), q)
    wanted = log_sum_exp(q, k, 1.0)
    assert torch.equal(ours, wanted)
    assert torch.equal(found, torch.autograd.grad(wanted.sum(), q)[0])
    assert log_sum_exp(q.bfloat16(), k.bfloat16(), 1.0).dtype == torch.float32


def test_no_more_than_a_chunk_of_scores_exists():
    q, k = tensors(3000, 900, 4)
    with LargestTensor() as seen:
        log_sum_exp(q, k, 1.0).sum().backward()
    assert seen.numel == module.LSE_ROWS * 900
