from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from itertools import combinations

import numpy as np
import pytest

from torchcell.cells.simulate import simulate_cells
from torchcell.drug_response.simulate import simulate_response
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.screen.simulate import (
    NETWORKS,
    CellDesign,
    SimulatedCell,
    simulate_cell,
    simulated_networks,
    simulated_screen,
    true_edges,
)


def simulated_cell(seed: int) -> SimulatedCell:
    return simulate_cell(CellDesign(seed=seed))


@pytest.fixture(scope="module")
def cell() -> SimulatedCell:
    return simulate_cell()


def digest(value: object) -> str:
    """A hash over all arrays and plain values inside ``value``."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return hashlib.sha256("".join(map(digest, value)).encode()).hexdigest()
    if hasattr(value, "toarray"):
        value = value.toarray()
    data = value.tobytes() + str(value.dtype).encode() if isinstance(value, np.ndarray) else repr(value).encode()
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("simulate", [simulated_cell, simulate_cells, simulate_response, simulate_knowledge_graph])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(simulate) -> None:
    assert digest(simulate(seed=3)) == digest(simulate(seed=3))
    assert digest(simulate(seed=3)) != digest(simulate(seed=4))


def test_the_two_config_functions_agree_with_the_cell(cell: SimulatedCell) -> None:
    assert digest(simulated_screen(seed=0)) == digest(cell.screen)
    assert digest(simulated_networks(seed=0)) == digest(cell.networks)


def test_the_default_cell_has_the_promised_size() -> None:
    cell = simulate_cell()
    screen = cell.screen.validate()
    assert (len(screen.genes), len(screen)) == (540, 6000)
    assert np.bincount(screen.sizes).tolist() == [0, 0, 4800, 1200]
    assert screen.phenotype_names == ("gene_interaction",)
    assert screen.replicates is not None
    assert screen.replicates.shape == (6000, 3, 1)
    assert screen.phenotype.dtype == np.float32
    graph = CellGraph.from_networks(cell.networks, genes=screen.genes.tolist())
    assert graph.relations == tuple(NETWORKS)
    assert not graph.dropped


def test_query_and_array_roles_name_the_members_of_each_set(cell: SimulatedCell) -> None:
    screen = cell.screen
    roles = zip(screen.columns["query"], screen.columns["array"], screen.sets(), strict=True)
    assert all((*query.split("|"), array) == members for query, array, members in roles)
    queries = {gene for query in screen.columns["query"] for gene in query.split("|")}
    arrays = set(screen.columns["array"])
    assert len(queries) == 48
    assert len(arrays) == 240
    assert queries & arrays  # some genes stand in both roles, as in real screens


def test_fitness_brings_singles_whose_interaction_is_missing() -> None:
    screen = simulated_screen(phenotypes=("gene_interaction", "fitness"), n_sets=2000)
    alone = screen.sizes == 1
    assert alone.sum() == len(np.unique(screen.gene))
    assert np.isnan(screen.phenotype[alone, 0]).all()
    assert np.isfinite(screen.phenotype[:, 1]).all()
    assert np.isfinite(screen.phenotype[~alone]).all()
    assert screen.truth is not None
    single = dict(zip(screen.gene[screen.ptr[:-1][alone]].tolist(), screen.truth[alone, 1], strict=True))
    pairs = np.flatnonzero(screen.sizes == 2)
    members = screen.gene[screen.ptr[pairs][:, None] + np.arange(2)]
    expected = np.array([single[i] * single[j] for i, j in members.tolist()])
    np.testing.assert_allclose(screen.truth[pairs, 1] - expected, screen.truth[pairs, 0], atol=1e-6)


def genes_of(cell: SimulatedCell, pathway: int, exposed: bool = True) -> np.ndarray:
    mechanism = cell.mechanism
    return np.flatnonzero((mechanism.gene_pathway == pathway) & (mechanism.exposed == exposed))


def test_pairs_have_the_planted_sign(cell: SimulatedCell) -> None:
    mechanism = cell.mechanism

    def epsilon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        grid = np.array([(i, j) for i in first for j in second if i != j])
        return mechanism.interaction(grid)

    for pathway in range(12):
        series = genes_of(cell, pathway)
        assert (epsilon(series, series) > 0).all()
        parallel = genes_of(cell, pathway, exposed=False)
        module = mechanism.module[parallel]
        one, other = parallel[module == module.min()], parallel[module == module.max()]
        assert (epsilon(one, other) < 0).all()
        np.testing.assert_allclose(epsilon(one, one), 0, atol=1e-12)  # their loss alone does not show
    for first, second in mechanism.buffers:
        assert (epsilon(genes_of(cell, first), genes_of(cell, second)) < 0).all()
    for pathway in range(6):
        assert (epsilon(genes_of(cell, pathway), genes_of(cell, pathway + 6)) > 0).all()


def test_a_triad_shows_an_interaction_that_none_of_its_pairs_shows(cell: SimulatedCell) -> None:
    for triad in cell.mechanism.triads:
        members = np.array([[genes_of(cell, pathway)[k] for pathway in triad] for k in range(5)])
        assert (cell.mechanism.interaction(members) < -0.02).all()
        for i, j in combinations(range(3), 2):
            np.testing.assert_allclose(cell.mechanism.interaction(members[:, [i, j]]), 0, atol=1e-12)


def test_a_third_gene_without_a_part_adds_no_interaction(cell: SimulatedCell) -> None:
    idle = np.flatnonzero(cell.mechanism.module < 0)[0]
    first, second = cell.mechanism.buffers[0]
    triple = np.array([[genes_of(cell, first)[0], genes_of(cell, second)[0], idle]])
    assert cell.mechanism.interaction(triple[:, :2])[0] < -0.02
    assert cell.mechanism.interaction(triple)[0] == pytest.approx(0, abs=1e-12)


def test_growth_is_the_closed_form_of_the_docstring(cell: SimulatedCell) -> None:
    mechanism, severity = cell.mechanism, cell.mechanism.severity
    first, second = mechanism.buffers[0]
    a, b = genes_of(cell, first)[0], genes_of(cell, second)[0]
    importance = mechanism.importance[mechanism.process[[first, second]]]
    expected = (1 - importance[0] * severity[a]) * (1 - importance[1] * severity[b])
    expected *= 1 - mechanism.buffer_strength[0] * severity[a] * severity[b]
    assert mechanism.fitness(np.array([[a, b, -1]]))[0] == pytest.approx(expected)
    assert mechanism.fitness(np.array([[-1, -1, -1]]))[0] == 1.0


def test_noise_has_the_stated_sd_and_repeats_of_the_table_agree_at_nine_tenths(cell: SimulatedCell) -> None:
    screen = cell.screen
    assert screen.replicates is not None
    assert screen.truth is not None
    error = screen.replicates - screen.truth[:, None, :]
    assert error.std() == pytest.approx(0.055, rel=0.02)
    assert abs(error.mean()) < 0.002
    np.testing.assert_allclose(screen.phenotype, screen.replicates.mean(1))
    signal = float(screen.truth.var())
    assert signal / (signal + 0.055**2 / 3) == pytest.approx(0.9, abs=0.02)


def test_networks_hold_the_stated_share_of_truth_and_the_noise_network_none(cell: SimulatedCell) -> None:
    mechanism = cell.mechanism
    pathway, module = mechanism.gene_pathway, mechanism.module
    position = {name: i for i, name in enumerate(cell.screen.genes.tolist())}
    for network in cell.networks:
        coverage, noise = NETWORKS[network.name]
        source = np.array([position[name] for name in network.source])
        target = np.array([position[name] for name in network.target])
        group = module if network.name in ("physical", "regulatory") else pathway
        share = ((group[source] == group[target]) & (group[source] >= 0)).mean()
        by_chance = (group[:, None] == group)[np.triu_indices(len(group), 1)].mean()
        slack = 4 * np.sqrt(by_chance / len(source)) + by_chance
        assert 1 - noise <= share + 1e-3 < 1 - noise + slack, network.name
        if network.name == "physical":
            complete = len(true_edges(mechanism, network.name, np.random.default_rng(0)))
            assert share * len(source) == pytest.approx(coverage * complete, rel=0.1)
    assert [n.name for n in cell.networks if n.directed] == ["regulatory"]


def test_knowing_the_pathways_beats_the_additive_ridge_by_far(cell: SimulatedCell) -> None:
    from scipy import sparse
    from sklearn.linear_model import Ridge

    screen, pathway = cell.screen, cell.mechanism.gene_pathway
    members = sparse.csr_matrix(
        (np.ones(len(screen.gene)), (screen.owner, screen.gene)), shape=(len(screen), len(screen.genes))
    )
    rows, columns = [], []
    for i, (start, stop) in enumerate(zip(screen.ptr[:-1], screen.ptr[1:], strict=True)):
        for a, b in combinations(sorted(pathway[screen.gene[start:stop]].tolist()), 2):
            rows.append(i)
            columns.append(((a + 1) * 13 + b + 1) * 2 + (stop - start == 3))
    relation = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(screen), 13 * 13 * 2))
    test = np.random.default_rng(0).permutation(len(screen)) % 5 == 0
    measured = screen.phenotype[:, 0]

    def held_out(features: sparse.csr_matrix, alpha: float) -> float:
        model = Ridge(alpha=alpha).fit(features[~test], measured[~test])
        return np.corrcoef(model.predict(features[test]), measured[test])[0, 1]

    additive = max(held_out(members, alpha) for alpha in (1.0, 3.0, 10.0, 30.0))
    oracle = held_out(sparse.hstack([members, relation]).tocsr(), 3.0)
    assert additive < 0.4
    assert oracle > additive + 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_pathways": 7}, "multiple of 6"),
        ({"n_genes": 50}, "at least"),
        ({"n_buffers": 60}, "leave room for"),
        ({"phenotypes": ("growth",)}, "choose from"),
        ({"n_sets": 60_000}, "cannot be drawn"),
        ({"n_queries": 400}, "do not fit"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_a_reason(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_cell(CellDesign(**arguments))


def test_a_small_cell_works_for_quick_tests() -> None:
    cell = simulate_cell(
        CellDesign(n_genes=80, n_sets=200, n_queries=12, n_arrays=40, n_pathways=6, n_buffers=5, seed=1)
    )
    assert len(cell.screen.validate()) == 200
