"""The reconstruction loss against all N^2 pairs written out."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.dango import Reconstruction


@pytest.fixture
def graph() -> CellGraph:
    """Twelve genes: a directed relation and an undirected one, with unequal weights."""
    arrow = sp.random(12, 12, density=0.2, random_state=1).toarray()
    both = sp.random(12, 12, density=0.1, random_state=2).toarray()
    relations = {"arrow": sp.csr_matrix(arrow), "both": sp.csr_matrix(both + both.T)}
    return CellGraph([f"g{i}" for i in range(12)], relations, directed=["arrow"])


def dense(graph: CellGraph, channel: str, z: torch.Tensor, w: torch.Tensor, zero: float) -> torch.Tensor:
    """The formula, pair by pair."""
    adjacency = torch.from_numpy(graph.scipy(channel).toarray()).to(z.dtype)
    weight = torch.where(adjacency != 0, 1.0, zero)
    return (weight * (adjacency - z @ w.T) ** 2).sum() / adjacency.square().sum()


@pytest.mark.parametrize("channel", ["arrow", "both"])
@pytest.mark.parametrize("zero", [0.0, 0.1, 1.0])
def test_equals_the_dense_form_in_value_and_gradient(graph, channel, zero):
    loss = Reconstruction(graph, ["arrow", "both"], zero)
    z, w = (torch.randn(12, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, naive = loss(graph, channel, z, w), dense(graph, channel, z, w, zero)
    torch.testing.assert_close(ours, naive)
    pairs = zip(torch.autograd.grad(3 * ours, (z, w)), torch.autograd.grad(3 * naive, (z, w)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b)


def test_gradcheck(graph):
    loss = Reconstruction(graph, ["arrow"], 0.3)
    z, w = (torch.randn(12, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda z, w: loss(graph, "arrow", z, w), (z, w))


def test_gradients_add_up_when_rows_and_columns_are_one_tensor(graph):
    loss = Reconstruction(graph, ["arrow"], 0.3)
    z = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(loss(graph, "arrow", z, z), z)
    torch.testing.assert_close(ours, torch.autograd.grad(dense(graph, "arrow", z, z, 0.3), z))


def test_predicting_no_edge_scores_one_and_the_truth_scores_zero(graph):
    loss = Reconstruction(graph, ["both"], 0.1)
    adjacency = torch.from_numpy(graph.scipy("both").toarray()).double()
    eye = torch.eye(12, dtype=torch.float64)
    assert loss(graph, "both", 0 * eye, eye).item() == pytest.approx(1.0)
    assert loss(graph, "both", adjacency, eye).item() == pytest.approx(0.0, abs=1e-12)


def test_each_channel_has_its_own_weight_and_the_repr_tells_it(graph):
    loss = Reconstruction(graph, ["arrow", "both"], {"both": 0.5, "arrow": 0.0})
    z, w = torch.randn(2, 12, 4, dtype=torch.float64)
    torch.testing.assert_close(loss(graph, "arrow", z, w), dense(graph, "arrow", z, w, 0.0))
    torch.testing.assert_close(loss(graph, "both", z, w), dense(graph, "both", z, w, 0.5))
    assert "'both': 0.5" in repr(loss)


def test_a_channel_missing_from_the_table_is_an_error_not_a_one(graph):
    """Elsewhere a table keyed by channel name fell back to 1 without a word."""
    with pytest.raises(InputError, match=r"no entry for the channels \['both'\]"):
        Reconstruction(graph, ["arrow", "both"], {"arrow": 0.1})


def test_an_unknown_name_in_the_table_is_named_with_its_nearest(graph):
    with pytest.raises(InputError, match=r"'arow'.*arrow"):
        Reconstruction(graph, ["arrow"], {"arow": 0.1})


def test_a_negative_weight_is_refused(graph):
    with pytest.raises(InputError, match="from 0 up"):
        Reconstruction(graph, ["arrow"], -0.1)
