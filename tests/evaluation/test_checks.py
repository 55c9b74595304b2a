"""Checks on planted models: one that reads its input, one that ignores it, one that hardly reads it; on noise alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from torchcell.core.datamodule import derangement
from torchcell.evaluation.bootstrap import interval, resample
from torchcell.evaluation.checks import Halves, input_use, measurable_signal, retrieval
from torchcell.evaluation.metrics import ProfileContext
from torchcell.evaluation.registry import metric
from torchcell.evaluation.results import Results

Make = Callable[..., Results]
KEY = "perturbation_shuffled"


def shuffles(values: np.ndarray, n: int = 5) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    orders = [derangement(torch.arange(len(values)), generator) for _ in range(n)]
    return [values[order.numpy()] for order in orders if order is not None]


def test_a_model_that_reads_its_input_loses_when_it_is_shuffled(make_results: Make) -> None:
    results = make_results(net=0.8)
    check = input_use(results, shuffles(results.systems["net"]), KEY, decides=True, n_boot=200)
    assert (check.status, check.reason) == ("ok", "")
    assert check.facts["drop"] == pytest.approx(check.facts["value"], abs=0.1)
    assert check.row is not None
    assert check.row.role == "input"


def test_a_model_that_ignores_its_input_is_named(make_results: Make) -> None:
    results = make_results(net=0.8)
    check = input_use(results, [results.systems["net"]] * 5, KEY, decides=True, n_boot=200)
    assert (check.status, check.reason) == ("failed", "input ignored (perturbation)")
    assert check.facts["correlation"] == pytest.approx(1)
    aside = input_use(results, [results.systems["net"]] * 5, KEY, decides=False, n_boot=200)
    assert (aside.reason, aside.row) == ("", None)


def test_a_constant_ignores_its_input(make_results: Make) -> None:
    results = make_results(net=np.full((400, 1), 0.3))
    assert input_use(results, [results.systems["net"]] * 2, KEY, decides=True, n_boot=50).status == "failed"


def test_a_drop_within_chance_is_not_shown(make_results: Make) -> None:
    """The predictions do change, and the score does not tell: what the input gives is noise."""
    results = make_results(net=0.0, n=60, n_clusters=60)
    check = input_use(results, shuffles(results.systems["net"]), KEY, decides=True, n_boot=200)
    assert (check.status, check.reason) == ("not shown", "input use not shown (perturbation)")


def test_four_perturbations_with_one_answer_show_no_use_of_the_input() -> None:
    """Seen on a CROP-seq set: predictions correlated by 1.000 with each other, and the run was green."""
    rng = np.random.default_rng(0)
    control = np.repeat(rng.normal(size=(1, 50)), 4, axis=0)
    truth = control + rng.normal(size=(4, 50))
    shared = control + rng.normal(size=(1, 50))
    names = np.arange(4).astype(str)
    results = Results(
        names, names, tuple(f"g{i}" for i in range(50)), truth, {"net": shared + 1e-3 * rng.normal(size=(4, 50))},
        task="cells", context=ProfileContext(control, control, control + 0.1 * rng.normal(size=(1, 50))),
        model="net",
    )  # fmt: skip
    check = input_use(results, shuffles(results.systems["net"]), KEY, decides=True, n_boot=200)
    assert check.status != "ok"


def test_where_all_samples_share_the_input_there_is_no_bar(make_results: Make) -> None:
    check = input_use(make_results(net=0.8), [], KEY, decides=True)
    assert (check.status, check.reason) == ("not applicable", "")


def test_of_a_response_the_change_from_the_plate_is_looked_at_and_without_a_plate_that_from_the_control() -> None:
    """On held-out lines no plate has a training mean; every check said that nothing can be said."""
    rng = np.random.default_rng(0)
    control, change = rng.normal(size=(30, 12)), rng.normal(size=(30, 12))
    names = np.arange(30).astype(str)
    results = Results(
        names, names, tuple(f"g{i}" for i in range(12)), control + change,
        {"net": control + change + 0.3 * rng.normal(size=(30, 12))},
        task="response", context=ProfileContext(control, center=control), model="net",
    )  # fmt: skip
    spoilt = [control + change[::-1]]
    assert input_use(results, spoilt, KEY, decides=True, n_boot=50).facts["metric"] == "pearson_delta_plate"
    cold = replace(results, context=replace(results.context, center=np.full((30, 12), np.nan)))
    found = input_use(cold, spoilt, KEY, decides=True, n_boot=50)
    assert (found.facts["metric"], found.status) == ("pearson_delta", "ok")


# Replicates ---------------------------------------------------------------------------------------------


def test_replicates_that_find_their_own_condition_show_a_signal() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 30))
    halves = Halves(truth + rng.normal(size=(40, 30)), truth + rng.normal(size=(40, 30)), np.zeros(40))
    check = measurable_signal(halves, np.arange(40).astype(str), n_boot=200)
    assert (check.status, check.reason) == ("ok", "")
    assert check.facts["retrieval"] > 0.9


def test_replicates_of_noise_withhold_the_verdict() -> None:
    rng = np.random.default_rng(1)
    halves = Halves(rng.normal(size=(40, 30)), rng.normal(size=(40, 30)), np.zeros(40))
    check = measurable_signal(halves, np.arange(40).astype(str), n_boot=200)
    assert (check.status, check.reason) == ("failed", "no measurable signal")


def test_a_handful_of_conditions_can_not_show_that_there_is_no_signal() -> None:
    first = np.random.default_rng(1).normal(size=(5, 30))
    halves = Halves(first, np.roll(first, 1, axis=0), np.zeros(5))
    check = measurable_signal(halves, np.arange(5).astype(str), n_boot=200)
    assert (check.status, check.reason) == ("not shown", "")


def test_without_replicates_the_class_is_not_used() -> None:
    assert measurable_signal(None, np.arange(4).astype(str)).status == "not applicable"
    alone = Halves(np.full((4, 3), np.nan), np.full((4, 3), np.nan), np.zeros(4))
    assert measurable_signal(alone, np.arange(4).astype(str)).status == "not applicable"


def test_samples_are_compared_within_their_context() -> None:
    """Cell types differ by far more than perturbations do: to find one's own type is no signal."""
    rng = np.random.default_rng(2)
    context = np.repeat([0, 1], 20)
    level = 50 * context[:, None] * rng.normal(size=(1, 30))
    share = retrieval(Halves(level + rng.normal(size=(40, 30)), level + rng.normal(size=(40, 30)), context))
    assert abs(share.mean() - 0.5) < 0.15


def test_wells_of_one_plate_are_no_evidence_against_a_replicate_on_another() -> None:
    """On L1000 a sample was nearer to strangers on its own plate than to its replicate, and the signal was denied."""
    rng = np.random.default_rng(3)
    drug, plate = rng.normal(size=(40, 30)), 3 * rng.normal(size=(2, 30))
    mine = np.repeat([0, 1], 20)
    first, second = drug + plate[mine], drug + plate[1 - mine]
    first, second = (half + 0.5 * rng.normal(size=half.shape) for half in (first, second))
    shared = mine[:, None] == (1 - mine)[None, :]
    assert retrieval(Halves(first, second, np.zeros(40))).mean() < 0.6
    assert retrieval(Halves(first, second, np.zeros(40), shared)).mean() > 0.9


# Derangements -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1], [5, 7]])
def test_no_sample_keeps_its_input(key: list[int]) -> None:
    for seed in range(50):
        order = derangement(torch.tensor(key), torch.Generator().manual_seed(seed))
        assert order is not None
        assert sorted(order.tolist()) == list(range(len(key)))
        assert all(key[i] != key[j] for i, j in enumerate(order.tolist()))


def test_one_input_for_all_can_not_be_shuffled_and_a_majority_keeps_what_it_must() -> None:
    generator = torch.Generator().manual_seed(0)
    assert derangement(torch.tensor([3, 3, 3]), generator) is None
    order = derangement(torch.tensor([0, 0, 0, 0, 1]), generator)
    assert order is not None
    assert sum(a != b for a, b in zip([0, 0, 0, 0, 1], np.array([0, 0, 0, 0, 1])[order.numpy()], strict=True)) == 2


# Clusters of two genes ----------------------------------------------------------------------------------


def test_a_pair_of_genes_belongs_to_both_so_that_a_gene_shared_by_all_adds_nothing() -> None:
    """Clustered by its first gene a pair counted as independent of all pairs in which that gene stands second."""
    rng = np.random.default_rng(0)
    genes = np.array([f"g{i:02d}" for i in range(20)])
    first, second = np.triu_indices(20, 1)
    effect = rng.normal(size=20)
    error = (effect[first] + effect[second]) ** 2
    both, one = np.stack([genes[first], genes[second]], 1), genes[first]
    mae = metric("mae", "regression").function
    wide, narrow = (interval(mae(np.zeros(len(error)), error, resample(group, 500))) for group in (both, one))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.se > 1.2 * narrow.se


def test_a_pads_text_is_no_cluster_and_weights_multiply() -> None:
    group = np.array([["a", "b"], ["a", ""], ["b", "c"], ["c", ""]])
    weights = resample(group, 20)
    assert weights.n_clusters == 3
    x = np.array([1.0, 2.0, 4.0, 8.0])
    a, b, c = weights.count.astype(float).T
    np.testing.assert_allclose(weights.total(x)[0], a * b + 2 * a + 4 * b * c + 8 * c)
    (block,) = list(weights.per_sample(np.array([2, 1])))
    np.testing.assert_allclose(block, np.stack([b * c, a], 1))
