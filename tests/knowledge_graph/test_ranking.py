"""Ranks: closed forms, and that a ranking shares a table and a verdict with labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torchcell.evaluation.bootstrap import Weights
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.registry import metric
from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError


def value(name: str, rank: list[float]) -> float:
    ranks = np.array(rank, dtype=float)
    return metric(name, "ranking").function(np.ones_like(ranks), ranks, Weights.ones(len(ranks)))[0]


def results(seed: int = 0, **ranks: np.ndarray) -> Results:
    n = len(next(iter(ranks.values())))
    group = np.array([f"g{i % max(n // 4, 2)}" for i in range(n)])
    return Results(
        np.array([f"e{i}" for i in range(n)]), group, ("CtD_tail", "CtD_head"), np.ones((n, 2)), ranks,
        task="ranking", model=next(iter(ranks)),
    )  # fmt: skip


def test_closed_forms() -> None:
    for name in ("mrr", "hits@1", "hits@10"):
        assert value(name, [1, 1, 1]) == metric(name, "ranking").best == 1
    assert value("mrr", [1, 2, 4]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert value("hits@1", [1, 1.5, 2]) == pytest.approx(1 / 3)  # tied with another one is not first
    assert value("hits@10", [10, 10.5, 1, 11]) == 0.5


def test_integer_weights_equal_repeated_samples() -> None:
    rank, count = np.array([1.0, 2.5, 8.0, 30.0]), np.array([[1, 1, 1, 1], [0, 3, 1, 2]], dtype=np.uint8)
    for name in ("mrr", "hits@1", "hits@10"):
        function = metric(name, "ranking").function
        repeated = [value(name, np.repeat(rank, c).tolist()) for c in count]
        np.testing.assert_allclose(function(np.ones(4), rank, Weights(count, np.arange(4))), repeated)


def test_reordering_changes_nothing_and_a_missing_rank_is_counted() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 50, size=(40, 2)).astype(float)
    one = results(model=ranks)
    order = rng.permutation(40)
    other = replace(one, sample_id=one.sample_id[order], group=one.group[order], systems={"model": ranks[order]})
    np.testing.assert_allclose(evaluate(one, 50).table.value, evaluate(other, 50).table.value)
    gaps = ranks.copy()
    gaps[:5, 0] = np.nan
    table = evaluate(results(model=gaps), 20).table.set_index("metric")
    assert table.loc["CtD_tail/mrr", "n_undefined"] == 5
    assert table.loc["CtD_tail/mrr", "value"] == pytest.approx((1 / ranks[5:, 0]).mean())
    assert table.loc["CtD_head/mrr", "n_undefined"] == 0


def test_an_edge_that_is_not_ranked_for_an_output_is_missing_for_every_system() -> None:
    ranks = np.ones((20, 2))
    measured = np.ones((20, 2))
    measured[10:, 0], ranks[10:, 0] = np.nan, np.nan
    table = evaluate(replace(results(model=ranks), measured=measured), 20).table
    assert (table.n_undefined == 0).all()


def test_labels_and_ranks_share_one_table_and_one_verdict() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([[1.0], [0.0]], 40, axis=0)
    score = {"model": label + rng.normal(size=(80, 1)) * 0.3, "floor": rng.random((80, 1))}
    binary = Results(
        np.arange(80).astype(str), np.array([f"g{i % 20}" for i in range(80)]), ("CtD_matched",), label, score,
        task="binary", decides=False,
    )  # fmt: skip
    ranks = results(model=np.ones((40, 2)), floor=rng.integers(5, 60, size=(40, 2)).astype(float))
    found = evaluate([binary, ranks], n_boot=100)
    names = ["CtD_matched/auroc", "CtD_matched/auprc", "CtD_matched/brier"]
    names += [f"CtD_{end}/{name}" for end in ("tail", "head") for name in ("mrr", "hits@1", "hits@10")]
    assert found.table[found.table.system == "model"].metric.tolist() == [*names, "mrr"]
    assert (found.verdict.primary.metric, found.verdict.kind) == ("mrr", "better")
    assert found.results == (binary, ranks)
    with pytest.raises(InputError, match="the same part and systems"):
        evaluate([binary, results(model=np.ones((4, 2)))])
    with pytest.raises(InputError, match="outputs of different names"):
        evaluate([ranks, replace(ranks, decides=False)])
