"""Attention and its log-sum-exp against the dense form: the kernel's, the chunked one, and gradients through both."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from tests.nn.largest_tensor import LargestTensor
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer import attention as module
from torchcell.screen.models.cell_graph_transformer.attention import attention, chunked_attention

FORMS = {"kernel": attention, "chunked": chunked_attention}


def tensors(heads: int, tokens: int, width: int, size: float = 1.0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shape = heads, tokens, width
    return [(size * torch.randn(shape, dtype=torch.float64)).requires_grad_() for _ in range(3)]


def dense(q, k, v, assigned):
    score = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return score.softmax(-1) @ v, torch.logsumexp(score, -1)[list(assigned)]


def both(out, lse):
    """A number that depends on both results, unevenly."""
    generator = torch.Generator().manual_seed(1)
    weight = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in (out, lse)]
    return (weight[0] * out).sum() + (weight[1] * lse).sum()


def largest(x: torch.Tensor) -> float:
    return float(x.detach().abs().max())


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 70), st.integers(1, 20), st.floats(0.1, 5))
def test_equals_the_dense_form(form, data, heads, tokens, width, size):
    assigned = data.draw(st.lists(st.integers(0, heads - 1), min_size=1, unique=True))
    given = tensors(heads, tokens, width, size)
    ours, wanted = FORMS[form](*given, assigned), dense(*given, assigned)
    found = torch.autograd.grad(both(*ours), given)
    truth = torch.autograd.grad(both(*wanted), given)
    # Gradients are sums over tokens that grow with the inputs; so does what rounding leaves of them.
    for mine, reference in zip((*ours, *found), (*wanted, *truth), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12 * max(1, largest(reference)))


@pytest.mark.parametrize("assigned", [[], [1], [2, 0]], ids="assigned={}".format)
@pytest.mark.parametrize("rows", [1, 5, 12], ids="rows={}".format)
def test_the_backward_pass_may_take_the_queries_in_runs(monkeypatch, rows, assigned):
    monkeypatch.setattr(module, "ROWS", rows)
    given = tensors(3, 12, 4)
    found = torch.autograd.grad(both(*attention(*given, assigned)), given)
    for mine, truth in zip(found, torch.autograd.grad(both(*dense(*given, assigned)), given), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1], ids=["output alone", "log-sum-exp alone"])
def test_either_result_may_go_unused(which):
    given = tensors(3, 10, 4)
    mine = torch.autograd.grad(attention(*given, [2])[which].square().sum(), given, allow_unused=True)
    truth = torch.autograd.grad(dense(*given, [2])[which].square().sum(), given, allow_unused=True)
    for ours, wanted in zip(mine, truth, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if wanted is None else wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-35, 1e-25, 1e-12, 1.0, 1e12], ids="{:g}".format)
@pytest.mark.parametrize("g", [0.0, 1e-12, 1e-4, 1.0], ids="g={:g}".format)
def test_rows_whose_output_has_little_gradient_or_none_keep_that_of_the_log_sum_exp(size, g):
    """One gradient enters the kernel as a multiple of the other, so neither may be lost beside it."""
    given = [each.detach().float().requires_grad_() for each in tensors(2, 12, 4)]
    exact = [each.detach().double().requires_grad_() for each in given]
    rows = torch.tensor([0.0, 1, size, 1, size, 0] * 2)[:, None]
    sizes = torch.tensor([1.0, g, g, 0, 1, g] * 2)
    found, truth = (
        torch.autograd.grad((rows * out).sum() + (sizes * lse).sum(), inputs)
        for (out, lse), inputs in ((attention(*given, [1]), given), (dense(*exact, [1]), exact))
    )
    for mine, reference in zip(found, truth, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-5, atol=2e-6 * max(1e-12, largest(reference)))


def test_without_tied_heads_it_is_torchs_own():
    given = tensors(2, 9, 4)
    out, lse = attention(*given)
    assert lse.shape == (0, 9)
    torch.testing.assert_close(out, dense(*given, [])[0], rtol=1e-12, atol=1e-12)


def test_views_of_one_projection_are_taken_as_they_are():
    torch.manual_seed(0)
    x = torch.randn(11, 3 * 2 * 4, dtype=torch.float64, requires_grad=True)
    given = x.view(11, 3, 2, 4).permute(1, 2, 0, 3)
    mine, truth = (torch.autograd.grad(both(*form(*given, [1])), x)[0] for form in (attention, dense))
    torch.testing.assert_close(mine, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_near_and_a_small_gradient_of_the_log_sum_exp_survives(half):
    given = tensors(3, 40, 16)
    low = [each.detach().to(half).requires_grad_() for each in given]
    (out, lse), (_, exact) = attention(*low, [1]), dense(*given, [1])
    assert out.dtype == half
    assert lse.dtype == torch.float32
    torch.testing.assert_close(lse.double(), exact, rtol=0.02, atol=0.02)
    (mine,) = torch.autograd.grad(1e-4 * lse.sum(), low[:1])
    (truth,) = torch.autograd.grad(1e-4 * exact.sum(), given[:1])
    torch.testing.assert_close(mine.double(), truth, rtol=0.05, atol=0.02 * largest(truth))


def test_autocast_runs_in_bfloat16_and_is_near():
    given = [each.detach().float().requires_grad_() for each in tensors(3, 40, 16)]
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = attention(*given, [0, 2])
        plain, _ = attention(*given)
        total = out.float().square().sum() + lse.square().sum()
    assert out.dtype == plain.dtype == torch.bfloat16
    exact = dense(*given, [0, 2])
    truth = torch.autograd.grad(exact[0].square().sum() + exact[1].square().sum(), given)
    for mine, reference in zip((out, lse, *torch.autograd.grad(total, given)), (*exact, *truth), strict=True):
        torch.testing.assert_close(mine.float(), reference, rtol=0.05, atol=0.03 * largest(reference))


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_checkpointing_changes_nothing(autocast):
    given = [each.detach().float().requires_grad_() for each in tensors(2, 12, 4)]

    def loss(*each):
        out, lse = attention(*each, [1])
        return out.float().square().sum() + lse.sin().sum()

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kept, again = loss(*given), checkpoint(loss, *given, use_reentrant=False)
    mine, wanted = (torch.autograd.grad(each, given) for each in (again, kept))
    assert all(torch.equal(a, b) for a, b in zip(mine, wanted, strict=True))


def test_no_scores_are_kept():
    given = tensors(2, 1500, 4)
    with LargestTensor() as seen:
        both(*attention(*given, [0])).backward()
    assert seen.numel <= 2 * 1500 * 5


@pytest.mark.parametrize("assigned", [[2], [-1], [0, 0]], ids=str)
def test_a_tied_head_that_does_not_exist_or_stands_twice_is_an_error(assigned):
    with pytest.raises(InputError, match="from 0 to 1"):
        attention(*tensors(2, 5, 4), assigned)
