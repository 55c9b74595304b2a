"""Each pooling against a loop over the sets."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.heads import POOLINGS, SetPooling
from torchcell.screen.models.common import HyperSAGNN

PTR = torch.tensor([0, 2, 3, 7])


def by_loop(layer: SetPooling, x: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
    one = {
        "mean": lambda part: part.mean(0),
        "sum": lambda part: part.sum(0),
        "hyper_sagnn": lambda part: layer.sagnn(part, torch.tensor([0, len(part)]))[0],
    }[layer.pooling]
    return torch.stack([one(x[a:b]) for a, b in pairwise(ptr.tolist())])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_equals_a_loop_over_the_sets(pooling):
    layer, x = SetPooling(8, pooling, heads=2).double(), torch.randn(7, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x, PTR), by_loop(layer, x, PTR), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_order_of_members_changes_nothing(pooling):
    layer, x = SetPooling(8, pooling, heads=2).double(), torch.randn(5, 8, dtype=torch.float64)
    ptr = torch.tensor([0, 5])
    torch.testing.assert_close(layer(x, ptr), layer(x[[4, 2, 0, 1, 3]], ptr), rtol=1e-12, atol=1e-12)


def test_only_hyper_sagnn_has_weights_and_the_heads_it_was_given():
    assert not list(SetPooling(8, "mean").parameters())
    assert not list(SetPooling(8, "sum").parameters())
    sagnn = SetPooling(8, "hyper_sagnn", heads=2).sagnn
    assert isinstance(sagnn, HyperSAGNN)
    assert (sagnn.heads, sagnn.outputs) == (2, 8)


def test_an_unknown_pooling_names_the_choices():
    with pytest.raises(InputError, match=r"mean.*sum.*hyper_sagnn.*not 'max'"):
        SetPooling(8, "max")


def test_repr_and_shape():
    layer = SetPooling(8, "sum")
    assert "8, pooling=sum" in repr(layer)
    assert layer(torch.randn(7, 8), PTR).shape == (3, 8)
