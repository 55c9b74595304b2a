"""The table: values, intervals, coverage and invariances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from torchcell.evaluation.bootstrap import Weights, interval, paired, resample
from torchcell.evaluation.evaluate import COLUMNS, evaluate
from torchcell.evaluation.metrics import ProfileContext
from torchcell.evaluation.registry import metric
from torchcell.evaluation.results import Results
from torchcell.evaluation.scored import scores

Make = Callable[..., Results]


def _row(results: Results, system: str, name: str, **options):
    table = evaluate(results, **options).table
    return table[(table.system == system) & (table.metric == name)].iloc[0]


def test_the_table_has_the_columns_of_the_contract_and_all_systems_in_order(make_results: Make) -> None:
    table = evaluate(make_results(ridge=0.3, net=0.8, twin=1.0, model="net", ceiling="twin"), n_boot=20).table
    assert tuple(table.columns) == COLUMNS
    assert list(dict.fromkeys(table.system)) == ["net", "ridge", "twin"]
    assert set(table.part) == {"test"}


def test_reordering_and_renaming_samples_changes_nothing(make_results: Make) -> None:
    results = make_results(net=0.8, ridge=0.3)
    order = np.random.default_rng(3).permutation(len(results))
    shuffled = replace(
        results,
        sample_id=np.array([f"other{i}" for i in order]),
        group=results.group[order],
        measured=results.measured[order],
        systems={name: value[order] for name, value in results.systems.items()},
    )
    one, other = evaluate(results, n_boot=50).table, evaluate(shuffled, n_boot=50).table
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(one[column], other[column], atol=1e-12)
    assert one.drop(columns=["value", "low", "high"]).equals(other.drop(columns=["value", "low", "high"]))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(make_results: Make) -> None:
    results = make_results(net=0.8)
    low = [_row(results, "net", "pearson", n_boot=50, seed=seed).low for seed in (0, 0, 1)]
    assert low[0] == low[1] != low[2]


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng, covered = np.random.default_rng(0), 0
    for repeat in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=150).T
        found = interval(metric("pearson", "regression").function(x, y, resample(np.arange(150), 200, repeat)))
        covered += found.low <= 0.6 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_paired_difference_excludes_0_when_planted_and_not_when_absent() -> None:
    rng, wrong = np.random.default_rng(0), 0
    mae = metric("mae", "regression").function
    for repeat in range(100):
        truth = rng.normal(size=200)
        good, same, bad = (truth + sd * rng.normal(size=200) for sd in (0.5, 0.5, 0.8))
        weights = resample(np.arange(200), 200, repeat)
        better = paired(mae(truth, good, weights), mae(truth, bad, weights))
        assert better.high < 0
        wrong += paired(mae(truth, good, weights), mae(truth, same, weights)).excludes_zero
    assert wrong <= 12


def test_units_whose_rows_agree_give_wider_intervals_than_rows() -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(30), 20)
    truth = rng.normal(size=600)
    prediction = truth + rng.normal(size=30)[unit]
    mse = metric("mse", "regression").function
    by_unit = interval(mse(truth, prediction, resample(unit, 500)))
    by_row = interval(mse(truth, prediction, resample(np.arange(600), 500)))
    assert by_unit.value == pytest.approx(by_row.value)
    assert by_unit.high - by_unit.low > 2 * (by_row.high - by_row.low)


def test_weights_total_equals_a_naive_sum_also_on_a_part_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    weights = resample(rng.integers(0, 7, 40), 9)
    x, rows = rng.normal(size=40), rng.random(40) < 0.3
    naive = [
        sum(count[unit] * value for unit, value in zip(weights.cluster, x, strict=True)) for count in weights.count
    ]
    np.testing.assert_allclose(weights.total(x)[0], naive)
    kept = [sum(c[u] * v for u, v in zip(weights.cluster[rows], x[rows], strict=True)) for c in weights.count]
    np.testing.assert_allclose(weights.at(rows).total(x[rows])[0], kept)
    assert (weights.count.sum(1) == 7).all()
    assert Weights.ones(3).n_clusters == 3


def test_missing_measurements_are_masked_for_every_system(make_results: Make) -> None:
    results = make_results(net=0.8, ridge=0.3)
    keep = np.arange(400) % 4 > 0
    gaps = replace(results, measured=np.where(keep[:, None], results.measured, np.nan))
    cut = replace(
        results,
        sample_id=results.sample_id[keep],
        group=results.group[keep],
        measured=results.measured[keep],
        systems={name: value[keep] for name, value in results.systems.items()},
    )
    one, other = (evaluate(each, n_boot=10).table for each in (gaps, cut))
    np.testing.assert_allclose(one.value, other.value)
    assert (one.n_undefined == 0).all()


def test_uncovered_samples_are_counted_and_the_value_is_that_of_the_covered(make_results: Make) -> None:
    results = make_results(net=0.8, near=0.5)
    part = np.where(np.arange(400)[:, None] < 300, results.systems["near"], np.nan)
    row = _row(replace(results, systems={**results.systems, "near": part}), "near", "mae", n_boot=10)
    assert row.n_undefined == 100
    assert row.n_units == 80
    assert row.value == pytest.approx(np.abs(results.measured - part)[:300].mean())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"systems": {"net": np.full((40, 1), 0.3)}}, "pearson"),
        ({"systems": {"net": np.full((40, 1), np.nan)}}, "mse"),
        ({"measured": np.full((40, 1), 2.0)}, "r2"),
        ({"group": np.full(40, "one")}, "mae"),
    ],
    ids=["constant prediction", "nothing predicted", "constant truth", "one unit"],
)
def test_the_undefined_is_nan_and_counts_every_sample_never_0(make_results: Make, change: dict, name: str) -> None:
    row = _row(replace(make_results(n=40, net=0.8), **change), "net", name, n_boot=10)
    assert np.isnan([row.value, row.low, row.high]).all()
    assert (row.n_units, row.n_undefined) == (0, 40)


def test_undefined_resamples_are_counted_and_too_many_leave_no_interval(make_results: Make) -> None:
    label = np.zeros((40, 1))
    label[0] = 1  # a third of the resamples have no positive
    results = make_results(n=40, n_clusters=40, task="binary", net=np.linspace(1, 0, 40)[:, None], measured=label)
    evaluation = evaluate(results, n_boot=200)
    row = evaluation.table[evaluation.table.metric == "auroc"].iloc[0]
    assert row.value == 1
    assert np.isnan(row.low)
    assert 40 < evaluation.undefined_resamples["net", "auroc"] < 120


def test_several_outputs_prefix_the_metric(make_results: Make) -> None:
    one = make_results(net=0.8)
    two = replace(
        one,
        outputs=("fitness", "growth"),
        measured=np.hstack([one.measured, -one.measured]),
        systems={"net": np.hstack([one.systems["net"]] * 2)},
    )
    table = evaluate(two, n_boot=10).table.set_index("metric").value
    assert table["growth/pearson"] == pytest.approx(-table["fitness/pearson"])
    assert "pearson" in set(evaluate(one, n_boot=10).table.metric)


def test_of_many_outputs_no_more_than_each_once_is_held(make_results: Make) -> None:
    """A view of a converted table kept all outputs for each of them: 8 GB for 24 edge types."""
    one = make_results(net=0.8)
    wide = {name: np.repeat(values[:, :1], 30, axis=1).astype(np.float32) for name, values in one.systems.items()}
    measured = np.repeat(one.measured[:, :1], 30, axis=1).astype(np.float32)
    results = replace(one, outputs=tuple(f"o{t}" for t in range(30)), systems=wide, measured=measured)
    for each in scores(results, resample(results.group, 10), several=True):
        for system in results.ordered:
            assert each.per_sample(system).base is None


def test_expression_scores_each_sample_over_genes_and_counts_the_undefined() -> None:
    rng = np.random.default_rng(0)
    measured, reference = rng.normal(size=(6, 50)), np.zeros((6, 50))
    predicted = measured.copy()
    predicted[0] = 0  # no change predicted: undefined on this sample only
    results = Results(
        np.arange(6).astype(str),
        np.arange(6).astype(str),
        tuple(f"g{i}" for i in range(50)),
        measured,
        {"model": predicted},
        task="expression",
        context=ProfileContext(reference),
    )
    delta = _row(results, "model", "pearson_delta", n_boot=50)
    assert (delta.value, delta.n_undefined, delta.n_units) == (pytest.approx(1), 1, 5)
    assert _row(results, "model", "mse", n_boot=50).value == pytest.approx((measured[0] ** 2).mean() / 6)
