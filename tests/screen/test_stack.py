"""The stack: honest columns, plain state, and weights that say which source carries it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from tests.screen.planted import assign_folds, mixed, ring, screen
from torchcell.core.linear_prior import CLIP
from torchcell.core.prior import InnerPart
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.state import read_state, write_state
from torchcell.report.sections import contribution_sections
from torchcell.screen.baselines import Mean
from torchcell.screen.record import Screen
from torchcell.screen.splits import SPLITS
from torchcell.screen.stack import Stack

SMALL = {"k": 10, "rank": 8, "n_iter": 2, "penalties": (10.0, 100.0)}
N, MODULES = 60, 6


def modules() -> tuple[Screen, CellGraph]:
    """What a pair does is said by the modules of its genes, which one of two networks knows."""
    rng = np.random.default_rng(0)
    module = np.arange(N) % MODULES
    effect = rng.normal(size=(MODULES, MODULES))
    effect = effect + effect.T
    i, j = np.triu_indices(N, 1)
    keep = rng.random(len(i)) < 0.5
    i, j = i[keep], j[keep]
    value = effect[module[i], module[j]] + 0.5 * rng.normal(size=len(i))
    queries = np.array([f"G{g:03d}" for g in i])
    record = screen(list(zip(i.tolist(), j.tolist(), strict=True)), value, N, columns={"query": queries})
    alike = (module[:, None] == module[None]) & ~np.eye(N, dtype=bool)
    upper = np.triu(rng.random((N, N)) < alike.mean(), 1)
    matrices = {"noise": sp.csr_matrix((upper | upper.T).astype(float)), "modules": sp.csr_matrix(alike.astype(float))}
    return record, CellGraph(record.genes.tolist(), matrices)


def inner(method: str, n_folds: int = 4):
    def folds(train):
        for fold in range(n_folds):
            part = SPLITS.make(train, method, n_folds, fold, seed=1).part
            yield np.isin(part, ("train", "val")), part == "test"

    return folds


def parts(record: Screen, method: str) -> tuple[Screen, Screen, Screen]:
    split = SPLITS.make(record, method, 5, 0, seed=0)
    train, val, test = (record.subset(split.index(part)) for part in ("train", "val", "test"))
    return train, val, test


@pytest.fixture(scope="module")
def held_out() -> tuple[Stack, Screen, CellGraph]:
    record, graph = modules()
    train, val, test = parts(record, "gene_disjoint_any")
    return Stack(**SMALL).with_folds(inner("gene_disjoint_any")).fit(train, val, graph), test, graph


@pytest.mark.parametrize("method", ["random", "gene_disjoint_any", "query_disjoint"])
def test_no_training_sample_meets_columns_that_were_fitted_to_it(method):
    record, graph = modules()
    train, val, _ = parts(record, method)
    folds = list(inner(method)(train))

    def columns(record: Screen) -> tuple[np.ndarray, np.ndarray]:
        stack = Stack(**SMALL).with_folds(lambda _: iter(folds[1:2])).fit(record, val, graph)
        return stack._out_of_fold(record, val, folds[1:2], 0)

    first, fold = columns(train)
    held = folds[1][1]
    assert (fold[held] == 0).all()
    other = train.phenotype.copy()
    other[held] = np.random.default_rng(1).normal(size=(held.sum(), 1))
    again, _ = columns(replace(train, phenotype=other))
    assert first[held].tobytes() == again[held].tobytes()
    assert np.ptp(first[held], axis=0).any()


def test_what_it_says_of_training_samples_is_out_of_fold(held_out):
    stack, _, graph = held_out
    record, _ = modules()
    train, val, _ = parts(record, "gene_disjoint_any")
    other = train.phenotype.copy()
    held = next(iter(inner("gene_disjoint_any")(train)))[1]
    later = np.zeros(len(train), dtype=bool)
    for _, more in list(inner("gene_disjoint_any")(train))[1:]:
        later |= more
    alone = held & ~later  # of two held-out genes the later fold speaks
    other[alone] *= -1
    again = Stack(**{**SMALL, "penalties": (100.0,)}).with_folds(inner("gene_disjoint_any"))
    same = Stack(**{**SMALL, "penalties": (100.0,)}).with_folds(inner("gene_disjoint_any"))
    again.fit(replace(train, phenotype=other), val, graph)
    same.fit(train, val, graph)
    truth = train.phenotype[alone, 0]
    honest = np.corrcoef(truth, same.out_of_fold()[alone, 0])[0, 1]
    turned = np.corrcoef(truth, again.out_of_fold()[alone, 0])[0, 1]
    assert honest > 0.3
    assert turned > 0, "its own turned values would turn it round"
    assert np.isfinite(stack.out_of_fold()).all()


def test_the_source_that_carries_the_prediction_has_the_weight(held_out):
    stack, test, _ = held_out
    prior = stack.fitted[0].prior
    spread = dict(zip(prior.sources, prior.spread_S.tolist(), strict=True))
    assert spread["modules"] > 2 * spread["noise"]
    assert np.corrcoef(stack.predict(test.blind())[:, 0], test.phenotype[:, 0])[0, 1] > 0.6


def test_a_constant_column_has_no_weight(held_out):
    stack, _, _ = held_out
    prior = stack.fitted[0].prior
    number = prior.names.index("members: number")
    assert prior.scale_F[number] == 0
    assert prior.weight_F[number] == 0
    assert (prior.scale_F > 0).any()


def test_its_state_is_a_file_of_plain_arrays_that_predicts_the_same(held_out, tmp_path):
    stack, test, graph = held_out
    write_state(tmp_path / "stack.npz", stack.state_dict())
    again = Stack(**SMALL).load_state_dict(read_state(tmp_path / "stack.npz"), graph)
    assert again.predict(test.blind()).tobytes() == stack.predict(test.blind()).tobytes()
    assert again.out_of_fold().tobytes() == stack.out_of_fold().tobytes()


def test_many_samples_are_predicted_by_blocks(held_out, monkeypatch):
    stack, test, _ = held_out
    whole = stack.predict(test)
    monkeypatch.setattr("torchcell.screen.stack.AT_ONCE", 37)
    np.testing.assert_allclose(stack.predict(test), whole, rtol=1e-5, atol=1e-6)


def test_without_folds_that_hold_values_it_says_what_to_do():
    train, val, _ = assign_folds(mixed())
    nobody = np.zeros(len(train), dtype=bool)
    stack = Stack(**SMALL).with_folds(lambda _: iter([(~nobody, nobody), (nobody, ~nobody)]))
    with pytest.raises(InputError, match=r"no inner fold of planted has values of p0 .*baselines.stack=null"):
        stack.fit(train, val, ring(24))


def test_a_leak_is_refused_before_anything_is_fitted():
    record, graph = modules()
    train, val, _ = parts(record, "random")
    value = np.zeros((N, N))
    pairs = train.gene.reshape(-1, 2)
    value[pairs[:, 0], pairs[:, 1]] = value[pairs[:, 1], pairs[:, 0]] = train.phenotype[:, 0]
    graph = CellGraph(train.genes.tolist(), {"copy": sp.csr_matrix(value), "modules": graph.scipy("modules")})
    with pytest.raises(InputError, match="leak"):
        Stack(**SMALL).fit(train, val, graph)
    Stack(**SMALL, trusted=("copy",)).fit(train, val, graph)


def test_the_report_draws_what_each_source_adds(held_out):
    stack, _, _ = held_out
    (added,) = stack.contributions()
    (section,) = contribution_sections("stack", [added], ["p0"])
    bars = section.figure.axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()][-1] == max(added, key=added.get)
    assert contribution_sections("mean", Mean().contributions(), []) == []


def test_its_columns_add_up_to_what_it_says(held_out):
    stack, test, _ = held_out
    prior, columns = stack.fitted[0].prior, stack.columns(test.blind())
    assert columns.shape == (len(test), len(prior.names))
    assert np.abs(columns).max() <= CLIP
    summed = columns @ prior.weight_F + prior.intercept
    np.testing.assert_allclose(summed, stack.predict(test.blind())[:, 0], rtol=1e-4, atol=1e-4)


def test_the_columns_of_training_samples_are_out_of_fold_also_after_it_was_saved(held_out, tmp_path):
    """The network would else read experts that know the noise of the sample."""
    stack, _, graph = held_out
    record, _ = modules()
    train, val, _ = parts(record, "gene_disjoint_any")
    write_state(tmp_path / "stack.npz", stack.state_dict())
    fitted_on, held = list(inner("gene_disjoint_any")(train))[1]
    again = Stack(**SMALL).load_state_dict(read_state(tmp_path / "stack.npz"), graph)
    other = train.phenotype.copy()
    other[held] *= -1
    honest, turned = (
        next(again.columns_out_of_fold([InnerPart(one.subset(fitted_on), one.subset(held), held)], val, graph))
        for one in (train, replace(train, phenotype=other))
    )
    assert honest.dtype == np.float32
    assert honest.shape == again.columns(train.subset(held).blind()).shape
    assert honest.tobytes() == turned.tobytes()
    by_columns = honest @ again.fitted[0].prior.weight_F
    assert np.corrcoef(train.phenotype[held, 0], by_columns)[0, 1] > 0.5
