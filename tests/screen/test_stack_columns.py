"""Columns of perturbation sets: each against a slow way to the same number, and what they may never hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from tests.screen.planted import mixed, pairs_of, ring, screen
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import cosine_neighbors, neighborhoods
from torchcell.io.errors import InputError
from torchcell.screen.baselines_fitted import Items, SetPairs
from torchcell.screen.experts import Experts, Likeness, Sources, fit_experts, refuse_leaks
from torchcell.screen.record import KINDS, Screen

N = 40
HOW = Likeness(k=5, rank=8, n_iter=2)


def two_networks(seed: int = 0) -> CellGraph:
    """A dense and a sparse random network, in which most genes have fewer neighbors than may lend."""
    rng = np.random.default_rng(seed)
    matrices = {}
    for name, density in (("dense", 0.3), ("sparse", 0.04)):
        upper = np.triu(rng.random((N, N)) < density, 1)
        matrices[name] = sp.csr_matrix((upper | upper.T).astype(np.float32))
    return CellGraph([f"G{i:03d}" for i in range(N)], matrices)


def halves(seed: int = 0) -> tuple[Screen, Screen]:
    """Pairs of 40 genes; the second record's all have one of the last eight genes, which the first one lacks."""
    rng = np.random.default_rng(seed)
    whole = pairs_of(rng.normal(size=(N, N)), 0.3)
    new = np.zeros(len(whole), dtype=bool)
    new[whole.owner[whole.gene >= N - 8]] = True
    return whole.subset(~new), whole.subset(new)


def fitted(train: Screen, val: Screen, graph: CellGraph | None = None, large: bool = False) -> Experts:
    items = Items.of(train)
    return fit_experts(train, val, 0, Sources.of(graph, train.genes, HOW.k), HOW, items, large)


@pytest.fixture(scope="module")
def pair() -> tuple[Experts, Screen, np.ndarray]:
    train, test = halves()
    experts = fitted(train, test, two_networks())
    return experts, test, experts.columns(test.blind())


@pytest.mark.parametrize("name", ["dense", "sparse", "networks"])
def test_a_vote_is_the_shrunk_mean_over_the_nearest_trained_genes(pair, name):
    """The neighbors' table was once reordered by a matrix made of it, and votes came from other genes."""
    experts, test, columns = pair
    graph, learned = two_networks(), experts.learned
    feature = neighborhoods(graph if name == "networks" else graph.only([name]), test.genes)
    cosine = cosine_neighbors(feature, N).toarray()
    residual = learned.matrix.toarray()[:N, :N]
    there = (learned.matrix.toarray() != 0)[:N, :N]
    trained = there.any(1)
    weight = np.zeros((N, N))
    for gene in range(N):
        near = sorted(np.flatnonzero(trained & (cosine[gene] > 0)), key=lambda k: (-cosine[gene, k], k))[: HOW.k]
        weight[gene, near] = cosine[gene, near] ** HOW.power
    lends = weight.sum(0) / max((weight > 0).any(1).sum(), 1)
    middle = float(lends @ there[trained].mean(0))
    vote, evidence = (columns[:, experts.names.index(f"{name}: {what}")] for what in ("vote", "log evidence"))
    for i, (a, b) in enumerate(test.gene.reshape(-1, 2).tolist()):
        rarity = learned.member[[a, b], 3]
        c, h = (b, a) if rarity[0] > rarity[1] else (a, b)
        c, h = (min(a, b), max(a, b)) if rarity[0] == rarity[1] else (c, h)
        own = float(weight[c] @ there[:, h])
        assert vote[i] == pytest.approx(weight[c] @ residual[:, h] / (own + HOW.shrinkage * middle), abs=1e-5)
        assert evidence[i] == pytest.approx(np.log1p(own / middle), rel=1e-4, abs=1e-5)


def test_lent_factors_are_the_low_rank_guess_for_a_gene_that_was_never_measured(pair):
    experts, test, columns = pair
    found = columns[:, experts.names.index("dense: factors")]
    table = next(table for table in experts.tables if table.name == "dense")
    learned = experts.learned
    pairs = SetPairs.of(test, learned.items)
    i = int(np.flatnonzero(experts.trained[pairs.left] & ~experts.trained[pairs.right])[0])
    c, h = pairs.right[i], pairs.left[i]
    lent = table.weight[c] @ learned.factor[table.near[c]] / table.weight[c].sum()
    assert found[i] == pytest.approx(float(lent * learned.sign @ learned.factor[h]), rel=1e-3)


def test_every_column_has_a_name_and_a_finite_value(pair):
    experts, test, columns = pair
    assert columns.shape == (len(test), len(experts.column_names)) == (len(test), len(set(experts.column_names)))
    assert np.isfinite(columns).all()
    assert {name.split(": ")[0] for name in experts.column_names} == {
        "dense", "sparse", "networks", "profiles", "members",
    }  # fmt: skip


def test_larger_sets_have_the_least_the_mean_and_the_largest_of_their_pairs():
    record = mixed()
    experts = fitted(record, record, ring(24), large=True)
    columns = experts.columns(record)
    width = len(experts.names)
    mean, least, largest = (columns[:, part * width : (part + 1) * width] for part in range(3))
    small = record.sizes < 3
    np.testing.assert_array_equal(mean[small], least[small])
    np.testing.assert_array_equal(mean[small], largest[small])
    assert (least[~small] < largest[~small]).any()
    assert (least <= mean + 1e-4).all()
    assert (mean <= largest + 1e-4).all()


def test_what_a_set_gets_does_not_depend_on_who_else_asks(pair):
    experts, test, columns = pair
    assert experts.columns(test.subset(np.array([7, 2]))).tobytes() == columns[[7, 2]].tobytes()


def test_annotations_and_both_directions_are_sources_of_their_own():
    names = [f"G{i:03d}" for i in range(N)]
    rng = np.random.default_rng(0)
    wired = sp.csr_matrix((rng.random((N, N)) < 0.1).astype(np.float32))
    terms = sp.csr_matrix((rng.random((6, N)) < 0.3).astype(np.float32))
    graph = CellGraph(
        names,
        {"wired": wired, "annotated": terms},
        directed=["wired", "annotated"],
        nodes={"term": [f"T{i}" for i in range(6)]},
        ends={"annotated": ("gene", "term")},
    )
    sources = Sources.of(graph, np.array(names), 5)
    assert sources.names == ["wired", "wired reversed", "annotations", "networks", "all"]
    feature = neighborhoods(graph, names).toarray()
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    left, right = np.arange(10), np.arange(10, 20)
    np.testing.assert_allclose(sources.cosines(left, right)[:, -1], (unit[left] * unit[right]).sum(1), atol=1e-5)


def test_without_a_graph_the_profiles_and_means_remain():
    train, test = halves()
    experts = fitted(train, test)
    assert {name.split(": ")[0] for name in experts.column_names} == {"profiles", "members"}
    assert np.isfinite(experts.columns(test)).all()


def test_genes_and_kinds_that_nobody_knows_get_the_means_of_the_others(pair):
    experts, test, _ = pair
    names = np.append(test.genes, ["NEW", "NEWER"])
    gene = test.gene.copy()
    gene[:2] = [N, N + 1]
    kind = test.kind.copy()
    kind[3] = KINDS.index("knockdown")
    found = experts.columns(replace(test, genes=names, gene=gene, kind=kind))
    assert np.isfinite(found).all()
    mean = experts.learned.member[experts.trained, 0].mean()
    assert found[0, experts.names.index("members: effect of c")] == pytest.approx(mean, abs=1e-6)
    assert found[0, experts.names.index("dense: evidence")] == 0


def leaking(factor: float, noise: float) -> tuple[Screen, CellGraph]:
    rng = np.random.default_rng(0)
    value = rng.normal(size=(N, N)).astype(np.float32)
    value = value + value.T
    other = factor * value + noise * rng.normal(size=(N, N)).astype(np.float32)
    other = np.triu(other, 1) + np.triu(other, 1).T
    record = pairs_of(value, 0.5)
    matrices = {"copied": sp.csr_matrix(other), "ring": ring(N).scipy("ring")}
    return record, CellGraph([f"G{i:03d}" for i in range(N)], matrices)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_a_relation_made_of_the_screen_is_refused(factor):
    record, graph = leaking(factor, 0.1)
    with pytest.raises(
        InputError, match=r"leak: .*copied \(correlation -?[01]\.[90].*baselines.stack.trusted=\[copied\]"
    ):
        refuse_leaks(record, graph)
    refuse_leaks(record, graph, ("copied",))
    refuse_leaks(record, None)


def test_triples_alone_have_no_value_of_an_edge_to_agree_with():
    """Kuzmin's triples ended in a traceback after the whole training."""
    _, graph = leaking(1.0, 0.1)
    refuse_leaks(screen([(i, i + 1, i + 2) for i in range(20)], np.arange(20.0), N), graph)


def test_a_relation_that_tells_something_is_none_that_tells_all():
    refuse_leaks(*leaking(1.0, 2.0))


def test_single_genes_are_paired_with_the_unperturbed_cell_and_borrow_from_singles():
    record = screen([(i,) for i in range(N)], np.arange(N, dtype=float), N)
    train = record.subset(np.arange(N) != 20)
    experts = fitted(train, train, ring(N))
    found = experts.columns(record.subset(np.array([20])))
    assert found[0, experts.names.index("ring: evidence")] > 0, "its neighbors' singles are measured"
