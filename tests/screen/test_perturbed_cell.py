"""Each way to compute F(G) - F(G minus S) equals copies of the graph with the nodes cut out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.screen.offset_cells import kinds, lost_by_copies
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import Closure, compute_bits
from torchcell.io.errors import InputError
from torchcell.nn import sparse as edge_softmax
from torchcell.nn.hgt import HGT
from torchcell.nn.relations import RelationStack
from torchcell.screen.models.perturbed_cell_gnn import khop as neighborhood
from torchcell.screen.models.perturbed_cell_gnn import perturbed_cell
from torchcell.screen.models.perturbed_cell_gnn import perturbed_cell as runs
from torchcell.screen.models.perturbed_cell_gnn.khop import lost_within
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import PerturbedCell

WIDTH = 4


def random_graph(rng: np.random.Generator, n_genes: int, hetero: bool) -> CellGraph:
    """Several relations with a hub (gene 0), an isolated gene (the last one) and uneven weights."""
    directed = np.triu(rng.random((n_genes, n_genes)) < 0.25, 1) * rng.uniform(0.5, 2, (n_genes, n_genes))
    undirected = np.triu(rng.random((n_genes, n_genes)) < 0.2, 1) * 1.0
    undirected[0, 1:] = 1.0
    for matrix in (directed, undirected):
        matrix[-1] = matrix[:, -1] = 0
    directed[1, 0] = 1.0
    matrices = {"directed": sp.csr_matrix(directed), "undirected": sp.csr_matrix(undirected + undirected.T)}
    if not hetero:
        return CellGraph([f"g{i}" for i in range(n_genes)], matrices, directed=["directed"])
    n_reactions, n_metabolites = 5, 3
    catalyses = (rng.random((n_reactions, n_genes)) < 0.3) * 1.0
    catalyses[0, 0] = 1.0
    produces = (rng.random((n_metabolites, n_reactions)) < 0.5) * rng.uniform(0.5, 3, (n_metabolites, n_reactions))
    produces[0, 0] = 2.0
    matrices |= {
        "catalyses": sp.csr_matrix(catalyses),
        "produces": sp.csr_matrix(produces),
        "catalysed_by": sp.csr_matrix(catalyses.T),
    }
    return CellGraph(
        [f"g{i}" for i in range(n_genes)],
        matrices,
        directed=[name for name in matrices if name != "undirected"],
        nodes={
            "reaction": [f"r{i}" for i in range(n_reactions)],
            "metabolite": [f"m{i}" for i in range(n_metabolites)],
        },
        ends={
            "catalyses": ("gene", "reaction"),
            "produces": ("reaction", "metabolite"),
            "catalysed_by": ("reaction", "gene"),
        },
    )


def random_sets(rng: np.random.Generator, n_nodes: int, n_sets: int) -> list[list[int]]:
    """Sets of 1 to 5 nodes; one deletes the hub, one the isolated gene, one everything."""
    sets = [sorted(rng.choice(n_nodes, rng.integers(1, 6), replace=False).tolist()) for _ in range(n_sets)]
    return [*sets, [0], [0, 1], list(range(n_nodes))]


def ragged(sets: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    node = torch.tensor([i for members in sets for i in members], dtype=torch.long)
    return node, torch.tensor([0, *np.cumsum([len(members) for members in sets], dtype=int)], dtype=torch.long)


def network(graph, n_layers, aggregation, merge, degree, linear, dtype=torch.float64, norm="layer"):
    stack = RelationStack(graph, graph.relations, mean=degree == "wild_type")
    layers = [
        RelationalLayer(WIDTH, len(stack), aggregation, merge, norm, linear=linear and i == n_layers - 1)
        for i in range(n_layers)
    ]
    for layer in layers:
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return lambda way: PerturbedCell(stack, layers, kinds(graph), way, degree == "true").to(dtype)


CASES = {
    "graph_seed": st.integers(0, 10_000),
    "n_genes": st.integers(6, 14),
    "n_layers": st.integers(1, 3),
    "aggregation": st.sampled_from(["rgcn", "sage", "gin"]),
    "merge": st.sampled_from(["sum", "mean", "attention", "pairwise"]),
    "degree": st.sampled_from(["sum", "wild_type", "true"]),
    "linear": st.booleans(),
    "hetero": st.booleans(),
}


def compare(ours, wanted, inputs, tolerance: float) -> None:
    """Values and gradients, by a random direction; a parameter that neither reads may have none."""
    torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)
    seed = torch.randn_like(wanted)
    pairs = zip(
        torch.autograd.grad((ours * seed).sum(), inputs, allow_unused=True),
        torch.autograd.grad((wanted * seed).sum(), inputs, allow_unused=True),
        strict=True,
    )
    for tensor, (mine, reference) in zip(inputs, pairs, strict=True):
        both = [torch.zeros_like(tensor) if each is None else each for each in (mine, reference)]
        torch.testing.assert_close(both[0], both[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("way", ["tile", "hybrid", "delta"])
@settings(max_examples=15, deadline=None)
@given(**CASES)
def test_every_way_equals_copies_of_the_graph(
    way, graph_seed, n_genes, n_layers, aggregation, merge, degree, linear, hetero
):
    rng = np.random.default_rng(graph_seed)
    torch.manual_seed(graph_seed)
    graph = random_graph(rng, n_genes, hetero)
    sets = random_sets(rng, graph.n_nodes, 4)
    cell = network(graph, n_layers, aggregation, merge, degree, linear)(way)
    x = torch.randn(graph.n_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    lost = cell.lost(cell.wild_type(x), *ragged(sets))
    mean, true = degree == "wild_type", degree == "true"
    wanted = lost_by_copies(cell.layers, graph, graph.relations, x, sets, mean, true)
    compare(lost, wanted, [x, *cell.layers.parameters()], 1e-10)


@pytest.mark.parametrize(("linear", "tolerance"), [(False, 1e-5), (True, 1e-4)], ids=["nonlinear", "linear readout"])
@pytest.mark.parametrize("way", ["tile", "hybrid", "delta"])
def test_single_precision_is_close_enough_on_a_larger_graph(way, linear, tolerance):
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    graph = random_graph(rng, 150, hetero=False)
    sets = random_sets(rng, 150, 6)
    cell = network(graph, 2, "rgcn", "sum", "wild_type", linear)(way)
    x, seed = torch.randn(150, WIDTH, dtype=torch.float64, requires_grad=True), torch.randn(len(sets), WIDTH)
    wanted = lost_by_copies(cell.layers, graph, graph.relations, x, sets, True, False)
    exact = [wanted, *torch.autograd.grad((wanted * seed).sum(), [x, *cell.layers.parameters()])]
    single, x = cell.float(), x.detach().float().requires_grad_()
    lost = single.lost(single.wild_type(x), *ragged(sets))
    ours = [lost, *torch.autograd.grad((lost * seed).sum(), [x, *single.layers.parameters()])]
    for mine, reference in zip(ours, exact, strict=True):
        error = (mine.double() - reference).abs().max() / reference.abs().max().clamp(min=1e-12)
        assert error.item() < tolerance


@pytest.mark.parametrize("way", ["tile", "hybrid", "delta"])
@settings(max_examples=5, deadline=None)
@given(graph_seed=st.integers(0, 10_000), n_genes=st.integers(6, 14), n_layers=st.integers(1, 3), hetero=st.booleans())
def test_attention_over_what_is_left_equals_copies_of_the_graph(way, graph_seed, n_genes, n_layers, hetero):
    rng = np.random.default_rng(graph_seed)
    torch.manual_seed(graph_seed)
    graph = random_graph(rng, n_genes, hetero)
    stack = RelationStack(graph, graph.relations)
    layers = [HGT(WIDTH, len(stack), len(graph.node_types), heads=2) for _ in range(n_layers)]
    cell = PerturbedCell(stack, layers, kinds(graph), way).double()
    x = torch.randn(graph.n_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    sets = random_sets(rng, graph.n_nodes, 3)
    lost = cell.lost(cell.wild_type(x), *ragged(sets))
    wanted = lost_by_copies(layers, graph, graph.relations, x, sets, False, False)
    compare(lost, wanted, [x, *cell.layers.parameters()], 1e-10)


@settings(max_examples=15, deadline=None)
@given(k=st.integers(1, 3), dense=st.booleans(), **CASES)
def test_a_neighborhood_equals_a_graph_cut_down_to_it(
    k, dense, graph_seed, n_genes, n_layers, aggregation, merge, degree, linear, hetero
):
    rng = np.random.default_rng(graph_seed)
    torch.manual_seed(graph_seed)
    graph = random_graph(rng, n_genes, hetero)
    sets = random_sets(rng, graph.n_nodes, 4)
    cell = network(graph, n_layers, aggregation, merge, degree, linear)("auto")
    x = torch.randn(graph.n_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    within = Closure(torch.from_numpy(compute_bits(graph, k)), k, graph.hash)
    share = neighborhood.DENSE
    try:  # a mask over the whole graph, or edges of its own: the same numbers
        neighborhood.DENSE = 0.0 if dense else 2.0
        lost = neighborhood.lost_within(cell, graph, within, cell.wild_type(x), *ragged(sets))
    finally:
        neighborhood.DENSE = share
    mean, true = degree == "wild_type", degree == "true"
    inside = within.nodes(*ragged(sets))
    wanted = lost_by_copies(cell.layers, graph, graph.relations, x, sets, mean, true, inside)
    compare(lost, wanted, [x, *cell.layers.parameters()], 1e-10)


def test_tiles_computed_again_give_the_same_gradients(monkeypatch):
    rng = np.random.default_rng(2)
    graph = random_graph(rng, 12, hetero=True)
    cell = network(graph, 2, "rgcn", "sum", "true", False)("delta")
    x = torch.randn(graph.n_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    sets = ragged(random_sets(rng, graph.n_nodes, 3))
    kept = cell.lost(cell.wild_type(x), *sets)
    monkeypatch.setattr(perturbed_cell, "KEPT_BYTES", 0)
    compare(cell.lost(cell.wild_type(x), *sets), kept, [x, *cell.layers.parameters()], 1e-12)


@pytest.mark.parametrize("hops", [None, 1])
def test_sets_in_runs_give_the_same_numbers_and_gradients_as_all_at_once(monkeypatch, hops):
    rng = np.random.default_rng(5)
    graph = random_graph(rng, 12, hetero=True)
    cell = network(graph, 2, "rgcn", "sum", "wild_type", True)("delta")
    x = torch.randn(graph.n_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    sets = ragged(random_sets(rng, graph.n_nodes, 6))
    within = Closure(torch.from_numpy(compute_bits(graph, 1)), 1, graph.hash)
    monkeypatch.setattr(neighborhood, "DENSE", 2.0)

    def lost() -> torch.Tensor:
        wild = cell.wild_type(x)
        return cell.lost(wild, *sets) if hops is None else neighborhood.lost_within(cell, graph, within, wild, *sets)

    whole = lost()
    monkeypatch.setattr(runs, "BUDGET", 1.0)
    compare(lost(), whole, [x, *cell.layers.parameters()], 1e-12)


@pytest.mark.parametrize("way", ["tile", "hybrid", "delta"])
def test_a_batch_without_sets_loses_nothing(way):
    graph = random_graph(np.random.default_rng(0), 8, hetero=False)
    cell = network(graph, 2, "rgcn", "sum", "sum", False)(way)
    x = torch.randn(8, WIDTH, dtype=torch.float64)
    assert cell.lost(cell.wild_type(x), *ragged([])).shape == (0, WIDTH)


@pytest.mark.parametrize("norm", ["batch", "graph"])
@pytest.mark.parametrize("way", ["hybrid", "delta"])
def test_a_norm_over_nodes_is_refused_where_only_changed_rows_are_computed(norm, way):
    graph = random_graph(np.random.default_rng(0), 8, hetero=False)
    with pytest.raises(
        InputError,
        match=rf"model.encoder.strategy={way} is not exact with (Batch|Graph)Norm.*model.encoder.strategy=tile",
    ):
        network(graph, 2, "rgcn", "sum", "sum", False, norm=norm)(way)
    assert network(graph, 2, "rgcn", "sum", "sum", False, norm=norm)("auto").strategy == "tile"


def test_tiles_with_graph_norm_equal_copies_of_the_graph():
    rng = np.random.default_rng(3)
    graph = random_graph(rng, 10, hetero=False)
    cell = network(graph, 2, "rgcn", "sum", "sum", False, norm="graph")("tile")
    x, sets = torch.randn(10, WIDTH, dtype=torch.float64), [[0], [2, 3]]
    wanted = lost_by_copies(cell.layers, graph, graph.relations, x, sets, False, False)
    torch.testing.assert_close(cell.lost(cell.wild_type(x), *ragged(sets)), wanted, rtol=1e-10, atol=1e-10)


def test_auto_chooses_by_depth():
    graph = random_graph(np.random.default_rng(0), 8, hetero=False)
    ways = {n: network(graph, n, "rgcn", "sum", "sum", False)("auto").strategy for n in (1, 2, 3, 4)}
    assert ways == {1: "delta", 2: "delta", 3: "hybrid", 4: "hybrid"}


def test_an_unknown_way_is_named():
    graph = random_graph(np.random.default_rng(0), 8, hetero=False)
    with pytest.raises(InputError, match="model.encoder.strategy='detla'.*delta"):
        network(graph, 1, "rgcn", "sum", "sum", False)("detla")


def test_no_tensor_of_edges_times_width_or_samples_times_edges_is_made(monkeypatch):
    """The largest tensor of a step, watched by a dispatch mode: docs/concepts/representations.md, rule 2."""
    monkeypatch.setattr(edge_softmax, "CHUNK", 800)
    rng = np.random.default_rng(4)
    n, width, n_sets = 120, 16, 8
    half = sp.csr_matrix(np.triu(rng.random((n, n)) < 0.5, 1) * 1.0)
    graph = CellGraph([f"g{i}" for i in range(n)], {"dense": half + half.T})
    stack, kind = RelationStack(graph, graph.relations), kinds(graph)
    n_edges = stack.n_edges
    assert n * width * 4 < n_edges * width / 2
    within = Closure(torch.from_numpy(compute_bits(graph, 1)), 1, graph.hash)
    sets = ragged([sorted(rng.choice(n, 2, replace=False).tolist()) for _ in range(n_sets)])
    x = torch.randn(n, width, requires_grad=True)
    linear = [RelationalLayer(width, 1, "rgcn", "sum", "layer", linear=i == 1) for i in range(2)]
    nonlinear = [RelationalLayer(width, 1, "rgcn", "sum", "layer") for _ in range(2)]
    attention = [HGT(width, 1, 1, heads=1) for _ in range(2)]
    for layers, way in itertools.product((linear, nonlinear, attention), ("tile", "hybrid", "delta")):
        cell = PerturbedCell(stack, layers, kind, way)
        for hops in (None, within):
            with Largest() as largest:
                wild = cell.wild_type(x)
                lost = cell.lost(wild, *sets) if hops is None else lost_within(cell, graph, hops, wild, *sets)
                lost.square().sum().backward()
            assert 0 < largest.numel < min(n_edges * width, n_sets * n_edges) / 2, (layers[0], way, hops)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest dense tensor held that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.numel = max(self.numel, tensor.numel() if tensor._is_view() is False else 0)
        return result
