"""The sum over pairs against a double loop over them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchcell.screen.models.cell_graph_transformer.heads import PairProduct

WIDTH, OUTPUTS = 5, 2


def module() -> PairProduct:
    torch.manual_seed(0)
    made = PairProduct(WIDTH, OUTPUTS).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def members(sizes: list[int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    ptr = torch.tensor([0, *itertools.accumulate(sizes)])
    return torch.randn(int(ptr[-1]), WIDTH, dtype=torch.float64, requires_grad=True), ptr


def loop(made: PairProduct, e_MP: Tensor, ptr: Tensor) -> Tensor:
    rows = []
    for first, last in itertools.pairwise(ptr.tolist()):
        row = torch.zeros(OUTPUTS, dtype=torch.float64)
        for i in range(first, last):
            row = row + made.single.weight @ e_MP[i]
            for j in range(i + 1, last):
                row = row + made.pair.weight @ (e_MP[i] * e_MP[j])
        rows.append(row)
    return torch.stack(rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_equals_a_double_loop_in_value_and_gradient(sizes):
    made, (e_MP, ptr) = module(), members(sizes)
    ours, wanted = made(e_MP, ptr), loop(made, e_MP, ptr)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(wanted)
    inputs = [e_MP, *made.parameters()]
    found, truth = (
        torch.autograd.grad((weight * each).sum(), inputs, materialize_grads=True) for each in (ours, wanted)
    )
    for mine, reference in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_the_order_of_members_does_not_matter():
    made, (e_MP, ptr) = module(), members([4, 3])
    order = torch.tensor([2, 0, 3, 1, 6, 5, 4])
    torch.testing.assert_close(made(e_MP[order], ptr), made(e_MP, ptr), rtol=1e-12, atol=1e-12)


def test_a_single_member_has_no_pair_and_an_empty_set_nothing():
    made, (e_MP, ptr) = module(), members([1, 0, 2])
    out = made(e_MP, ptr)
    torch.testing.assert_close(out[0], made.single.weight @ e_MP[0], rtol=1e-12, atol=1e-12)
    assert (out[1] == 0).all()
    assert not torch.allclose(out[2], made.single.weight @ (e_MP[1] + e_MP[2]))


@pytest.mark.parametrize("seed", range(3))
def test_fresh_weights_are_signs_for_pairs_and_no_effect_of_a_member(seed):
    torch.manual_seed(seed)
    made = PairProduct(64, OUTPUTS)
    assert (made.pair.weight.abs() == 1).all()
    assert -0.5 < float(made.pair.weight.detach().mean()) < 0.5  # both signs
    assert (made.single.weight == 0).all()
    e_MP = torch.randn(2, 64)
    torch.testing.assert_close(made(e_MP, torch.tensor([0, 2]))[0], made.pair.weight @ (e_MP[0] * e_MP[1]))


def test_the_repr_tells_the_widths():
    assert repr(module()).startswith("PairProduct(\n  5, 2")
