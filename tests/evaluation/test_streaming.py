"""Streaming metrics equal those of the whole epoch, however it is cut into batches and processes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

import torchcell.cells.metrics
import torchcell.drug_response.metrics
import torchcell.knowledge_graph.metrics  # noqa: F401
from torchcell.evaluation.registry import streaming_metrics
from torchcell.io.errors import InputError


def _epoch(offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(300, 2, generator=generator) + offset
    prediction = 0.5 * target + torch.randn(300, 2, generator=generator) + offset
    return prediction, torch.where(torch.rand(300, 2, generator=generator) < 0.2, torch.nan, target)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("size", [1, 37, 300])
def test_regression_equals_scipy_on_the_measured_values(offset: float, size: int) -> None:
    prediction, target = _epoch(offset)
    metrics = streaming_metrics("regression", ("a.b", "c"))
    for x, y in zip(prediction.split(size), target.split(size), strict=True):
        metrics.update(x, y)
    value = metrics.compute()
    for t, name in enumerate(("a.b", "c")):
        held = ~torch.isnan(target[:, t])
        x, y = prediction[held, t].double().numpy(), target[held, t].double().numpy()
        assert value[f"{name}/Pearson"].item() == pytest.approx(stats.pearsonr(x, y).statistic, abs=2e-4)
        assert value[f"{name}/MSE"].item() == pytest.approx(np.mean((x - y) ** 2), rel=1e-3)


def test_processes_are_merged_exactly_and_a_process_without_data_adds_nothing() -> None:
    prediction, target = _epoch()
    whole, left, right, idle = (streaming_metrics("regression", ("a", "c")) for _ in range(4))
    whole.update(prediction, target)
    left.update(prediction[:90], target[:90])
    right.update(prediction[90:], target[90:])
    merge = whole._reductions["moments"]
    merged = merge(torch.stack([left.moments, idle.moments, right.moments]))
    torch.testing.assert_close(merged, whole.moments)


def test_expression_pools_all_genes() -> None:
    prediction, target = _epoch()
    metrics = streaming_metrics("expression", ("g1", "g2"))
    metrics.update(prediction, target)
    held = ~torch.isnan(target)
    expected = stats.pearsonr(prediction[held].numpy(), target[held].numpy()).statistic
    assert metrics.compute()["expression/Pearson"].item() == pytest.approx(expected, abs=1e-5)


def test_binary_equals_sklearn_on_the_measured_values() -> None:
    prediction, target = _epoch()
    label = torch.where(torch.isnan(target), target, (target > 0.7).float())
    metrics = streaming_metrics("binary", ("a", "c"))
    for x, y in zip(prediction.sigmoid().split(64), label.split(64), strict=True):
        metrics.update(x, y)
    held = ~torch.isnan(label[:, 1])
    truth, score = label[held, 1].numpy(), prediction[held, 1].sigmoid().numpy()
    assert metrics.compute()["c/AUROC"].item() == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-6)
    assert metrics.compute()["c/AP"].item() == pytest.approx(sk.average_precision_score(truth, score), abs=1e-6)


@pytest.mark.parametrize("task", ["regression", "binary", "expression"])
def test_the_undefined_is_nan_without_a_warning_and_reset_forgets(task: str) -> None:
    metrics = streaming_metrics(task, ("a",))
    headline = {"regression": "a/Pearson", "binary": "a/AUROC", "expression": "expression/Pearson"}[task]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.update(torch.full((8, 1), 0.3), torch.full((8, 1), torch.nan))
        assert torch.isnan(metrics.compute()[headline])
        metrics.reset()
        noise = torch.tensor([0.0, 3e-8]).repeat(4)[:, None]
        target = torch.ones(8, 1) if task == "binary" else torch.arange(8.0)[:, None]
        metrics.update(0.3 + noise, target)
        assert torch.isnan(metrics.compute()[headline])
        metrics.reset()
        score = torch.linspace(0.1, 0.9, 8)[:, None]
        metrics.update(score, (score > 0.5).float())
        assert metrics.compute()[headline] > 0.8


def test_the_noise_of_shared_controls_scores_nothing_where_each_side_has_its_own() -> None:
    """A change of nothing but the controls' noise looked like skill in the choice of the best epoch."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 50, 400, generator=draw)
    level = torch.rand(400, generator=draw)
    one, other = level + noise[0], level + noise[1]
    target, prediction = (level + 0.1 * torch.randn(50, 400, generator=draw) for _ in range(2))
    shared, apart = streaming_metrics("cells", ["g"] * 400), streaming_metrics("cells", ["g"] * 400)
    shared.update(prediction, target, {"control": one})
    apart.update(prediction, target, {"control": one}, {"control": other})
    assert shared.compute()["control/Pearson"] > 0.9
    assert abs(float(apart.compute()["control/Pearson"])) < 0.05


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match="ranking"):
        streaming_metrics("ranking", ("a",))
