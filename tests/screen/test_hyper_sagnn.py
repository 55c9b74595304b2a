"""Hyper-SAGNN against a plain loop over sets and members."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from torchcell.screen.models.common import HyperSAGNN

SIZES = [2, 3, 1, 5, 2]
PTR = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()])


def by_loops(layer: HyperSAGNN, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    """The formula, one set, member and head at a time."""
    width = layer.features // layer.heads
    q, k, v = (x @ layer.query_key_value.weight.T).split(layer.features, dim=1)
    rows = []
    for a, b in pairwise(ptr.tolist()):
        total = 0
        for i in range(a, b):
            others = [j for j in range(a, b) if j != i]
            dynamic = torch.zeros(layer.features, dtype=x.dtype)
            if others:
                heads = []
                for h in range(layer.heads):
                    part = slice(h * width, (h + 1) * width)
                    alpha = torch.stack([q[i, part] @ k[j, part] for j in others]).div(math.sqrt(width)).softmax(0)
                    heads.append(sum(w * v[j, part] for w, j in zip(alpha, others, strict=True)))
                dynamic = torch.tanh(layer.dynamic(torch.cat(heads)))
            static = torch.tanh(layer.static(x[i]))
            both = (dynamic - static) ** 2 if layer.score == "difference" else dynamic * static
            total = total + layer.readout(both) / (b - a)
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("score", ["difference", "product"])
def test_equals_a_loop_over_sets_of_any_size_in_value_and_gradient(score):
    layer = HyperSAGNN(8, 3, heads=2, score=score).double()
    x = torch.randn(sum(SIZES), 8, dtype=torch.float64, requires_grad=True)
    naive = by_loops(layer, x, PTR)
    torch.testing.assert_close(layer(x, PTR), naive)
    leaves, upstream = [x, *layer.parameters()], torch.randn(len(SIZES), 3, dtype=torch.float64)
    ours = torch.autograd.grad(layer(x, PTR), leaves, upstream)
    for a, b in zip(ours, torch.autograd.grad(naive, leaves, upstream), strict=True):
        torch.testing.assert_close(a, b)


def test_repr_and_shape():
    layer = HyperSAGNN(8, 3, heads=2, score="product")
    assert "8, 3, heads=2, score=product" in repr(layer)
    assert layer(torch.randn(4, 8), torch.tensor([0, 4])).shape == (1, 3)


def test_order_of_members_changes_nothing():
    layer, x = HyperSAGNN(8, 2, heads=2).double(), torch.randn(5, 8, dtype=torch.float64)
    ptr = torch.tensor([0, 5])
    torch.testing.assert_close(layer(x[[3, 0, 4, 1, 2]], ptr), layer(x, ptr))


def test_a_set_is_scored_the_same_whatever_else_is_in_the_batch():
    """Guards against attention over all members of the batch, and against padding that leaks."""
    layer, x = HyperSAGNN(8, 2, heads=2).double(), torch.randn(sum(SIZES), 8, dtype=torch.float64)
    together = layer(x, PTR)
    for i, (a, b) in enumerate(pairwise(PTR.tolist())):
        torch.testing.assert_close(layer(x[a:b], torch.tensor([0, b - a]))[0], together[i])


def test_a_set_of_one_has_a_zero_dynamic_part_and_finite_gradients():
    layer, x = HyperSAGNN(8, 1, heads=2).double(), torch.randn(1, 8, dtype=torch.float64, requires_grad=True)
    score = layer(x, torch.tensor([0, 1]))
    torch.testing.assert_close(score, layer.readout(torch.tanh(layer.static(x)) ** 2))
    score.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_bad_heads_or_score_are_refused():
    with pytest.raises(ValueError, match="3 heads"):
        HyperSAGNN(8, 1, heads=3)
    with pytest.raises(ValueError, match="'difference' or 'product'"):
        HyperSAGNN(8, 1, score="sum")
