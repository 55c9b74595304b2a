"""Metrics with their best and their no-skill value, and metric sets for types of targets."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchcell.evaluation import metrics
from torchcell.evaluation.bootstrap import Weights
from torchcell.io.errors import InputError, near, some

if TYPE_CHECKING:
    import torchmetrics


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As in the tables.
        function: Over samples: ``(truth [n], prediction [n], weights) -> [R]``; over genes:
            ``Profiles`` -> [n].
        best: Value of a perfect prediction.
        no_skill: Score of a prediction without any input: a number, ``mean`` (the score of the truth's mean),
            ``prevalence`` (the share of positives), ``fixed`` (the mean rank of one vector for all samples) or
            ``undefined``.
        higher_is_better: Direction.
        sentence: Its meaning, for the reader of the report.
        over: ``samples``, or ``genes`` of each sample and then the mean over samples.
        beside: Systems that must be scored too; without them the metric is not shown, since it would mislead.
    """

    name: str
    function: Callable[..., np.ndarray]
    best: float
    no_skill: float | Literal["mean", "prevalence", "fixed", "undefined"]
    higher_is_better: bool
    sentence: str
    over: Literal["samples", "genes"] = "samples"
    beside: tuple[str, ...] = ()

    def no_skill_value(self, truth: np.ndarray, context: np.ndarray | None = None) -> float:
        """The no-skill value on the measured ``truth`` [n] (NaN left out), NaN where it has none.

        Args:
            truth: Measured values of one output.
            context: Name of the group within which a sample is ranked [n]; none: all samples.
        """
        truth = np.asarray(truth, dtype=np.float64)
        measured = ~np.isnan(truth)
        truth = truth[measured]
        if self.no_skill == "fixed":
            _, n = np.unique(np.zeros(len(measured)) if context is None else context, return_counts=True)
            n = n[n > 1]
            return float(((n + 1) / 2).sum() / n.sum()) if n.size else float("nan")
        if not isinstance(self.no_skill, str):
            return float(self.no_skill)
        if not len(truth) or self.no_skill == "undefined" or self.over == "genes":
            return float("nan")
        if self.no_skill == "prevalence":
            return float(truth.mean())
        return float(self.function(truth, np.full_like(truth, truth.mean()), Weights.ones(len(truth)))[0])


@dataclass(frozen=True)
class MetricSet:
    """How predictions of one type of target are scored. A task registers its own, see ``register``.

    Attributes:
        name: As in ``Spec.task`` and ``Results.task``.
        metrics: In the order of the table.
        primary: The metric that decides the verdict: the first of these that has a value on the data.
        calibration: Calibration metrics: a verdict is green only if they are not worse.
        beside: Metrics that are compared with every baseline and shown on a narrow screen; they decide nothing.
        streaming: Names of the outputs -> streaming metrics for training; none where no model is trained.
        per_gene: Whether outputs are genes, so that each sample is scored over them.
        labels: Whether targets are 0 or 1 and predictions probabilities.
    """

    name: str
    metrics: tuple[Metric, ...]
    primary: tuple[str, ...]
    calibration: tuple[str, ...]
    beside: tuple[str, ...]
    streaming: Callable[[Sequence[str]], torchmetrics.Metric] | None = None
    per_gene: bool = False
    labels: bool = False


_SETS: dict[str, MetricSet] = {}


_LOWER: set[str] = set()
"""Metrics of tasks that are not imported here for which lower is better, as a run has written."""


def register(one: MetricSet) -> MetricSet:
    """Register a set by its name for scoring, figures and ``collect``; returns the set.

    Raises:
        InputError: Another set has this name, or a metric of another set has the same name and the other direction:
            a metric is never replaced, and a name in a table has one meaning.
    """
    if _SETS.get(one.name, one) is not one:
        raise InputError(f"metrics of the task {one.name!r} are registered already; give your set another name")
    known = {each.name: each.higher_is_better for each in every_metric()}
    opposite = [
        each.name for each in one.metrics if known.get(each.name, each.higher_is_better) != each.higher_is_better
    ]
    if opposite:
        raise InputError(
            f"metrics of the task {one.name!r}: {some(opposite)} of another task have the other direction; rename them"
        )
    _SETS[one.name] = one
    return one


@contextmanager
def learned_directions(lower_is_better: Iterable[str]) -> Iterator[None]:
    """Within the block lower is better of these metrics too, as runs of tasks say that are not imported here."""
    before = set(_LOWER)
    _LOWER.update(lower_is_better)
    try:
        yield
    finally:
        _LOWER.clear()
        _LOWER.update(before)


def is_known(name: str) -> bool:
    """Whether a registered set has the metric, named as in a table."""
    return any(one.name == name.rpartition("/")[2] for one in every_metric())


def is_registered(task: str) -> bool:
    """Whether there is a set of this name."""
    return task in _SETS


def metric_set(task: str) -> MetricSet:
    """The set that targets of ``task`` are scored by.

    Raises:
        InputError: There is no set of this name.
    """
    if task not in _SETS:
        raise InputError(f"no metrics for the task {task!r}; there are {some(_SETS)}")
    return _SETS[task]


def every_metric() -> tuple[Metric, ...]:
    """All metrics of all registered sets."""
    return tuple(one for each in _SETS.values() for one in each.metrics)


def streaming_metrics(task: str, outputs: Sequence[str]) -> torchmetrics.Metric:
    """Streaming metrics for the training of a model of ``task`` with ``outputs``, in the order of the columns.

    Raises:
        InputError: The metric set of the task has no streaming metrics.
    """
    make = metric_set(task).streaming
    if make is None:
        raise InputError(f"no streaming metrics for the task {task!r}: nothing is trained on it")
    return make(outputs)


def compared_metrics() -> frozenset[str]:
    """Names of all metrics on which any set compares model and baselines."""
    sets = _SETS.values()
    return frozenset(name for one in sets for name in (*one.primary, *one.calibration, *one.beside))


def metric(name: str, task: str) -> Metric:
    """The metric ``name`` of ``task``; an unknown one is an error with near matches."""
    known = {one.name: one for one in metric_set(task).metrics}
    if name not in known:
        raise InputError(
            f"no metric {name!r} for the task {task!r}; there are {some(near(name, list(known)) or known)}"
        )
    return known[name]


def profile(task: str, systems: Container[str] | None = None) -> tuple[Metric, ...]:
    """The metrics of ``task``, in the order of the table; with ``systems`` only those that may be shown beside them."""
    all_metrics = metric_set(task).metrics
    return tuple(one for one in all_metrics if systems is None or all(name in systems for name in one.beside))


def higher_is_better(name: str) -> bool:
    """Direction of a metric by its name in a table, ``<output>/<metric>`` or the metric alone."""
    short = name.rpartition("/")[2]
    return {one.name: one.higher_is_better for one in every_metric()}.get(short, short not in _LOWER)


def _correlation(outputs: Sequence[str]) -> torchmetrics.Metric:
    from torchcell.evaluation.streaming import StreamingCorrelation  # here: tables are made without importing torch

    return StreamingCorrelation(outputs)


def _pooled_correlation(outputs: Sequence[str]) -> torchmetrics.Metric:
    from torchcell.evaluation.streaming import POOLED, StreamingCorrelation

    return StreamingCorrelation((POOLED,), pooled=True)


def _ranking(outputs: Sequence[str]) -> torchmetrics.Metric:
    from torchcell.evaluation.streaming import StreamingRanking

    return StreamingRanking(outputs)


def profile_correlation(*controls: str) -> Callable[[Sequence[str]], torchmetrics.Metric]:
    """Streaming metrics of genes: correlation of changes from each control, a key of ``Batch.input_controls``."""

    def make(outputs: Sequence[str]) -> torchmetrics.Metric:
        from torchcell.evaluation.streaming import StreamingProfile

        return StreamingProfile(controls)

    return make


REGRESSION = register(
    MetricSet(
        "regression",
        (
            Metric("pearson", metrics.pearson, 1, 0.0, True, "linear correlation over samples"),
            Metric("spearman", metrics.spearman, 1, 0.0, True, "rank correlation over samples"),
            Metric(
                "r2", metrics.r2, 1, "mean", True, "share of the variance explained; below 0 is worse than the mean"
            ),
            Metric("mse", metrics.mse, 0, "mean", False, "mean squared error"),
            Metric("rmse", metrics.rmse, 0, "mean", False, "root mean squared error, in the phenotype's units"),
            Metric("mae", metrics.mae, 0, "mean", False, "mean absolute error, in the phenotype's units"),
        ),
        primary=("pearson",),
        calibration=("r2",),
        beside=("pearson", "spearman", "r2", "mae"),
        streaming=_correlation,
    )
)
"""Numbers, one or several a sample."""

BINARY = register(
    MetricSet(
        "binary",
        (
            Metric("auroc", metrics.auroc, 1, 0.5, True, "chance that a positive is scored above a negative"),
            Metric("auprc", metrics.auprc, 1, "prevalence", True, "average precision; no skill is the prevalence"),
            Metric(
                "brier",
                metrics.brier,
                0,
                "mean",
                False,
                "mean squared error of the predicted probability; undefined for scores that are no probabilities",
            ),
        ),
        primary=("auroc",),
        calibration=("brier",),
        beside=("auroc", "auprc", "brier"),
        streaming=_ranking,
        labels=True,
    )
)
"""Labels, 0 or 1."""

PEARSON_DELTA = Metric(
    "pearson_delta",
    metrics.pearson_delta,
    1,
    "undefined",
    True,
    "correlation over genes of true and predicted change, mean over samples",
    "genes",
)
MSE_OVER_GENES = Metric(
    "mse", metrics.mse_over_genes, 0, "mean", False, "squared error over genes, mean over samples", "genes"
)
MAE_OVER_GENES = Metric(
    "mae", metrics.mae_over_genes, 0, "mean", False, "absolute error over genes, mean over samples", "genes"
)
SKILL = Metric(
    "skill",
    metrics.skill,
    1,
    0.0,
    True,
    "1 - squared error / squared error of the training mean that the primary metric is centered on",
    "genes",
)
"""Metrics over genes that several tasks share."""

EXPRESSION = register(
    MetricSet(
        "expression",
        (PEARSON_DELTA, MSE_OVER_GENES, MAE_OVER_GENES),
        primary=("pearson_delta",),
        calibration=("mse",),
        beside=("pearson_delta", "mse"),
        streaming=_pooled_correlation,
        per_gene=True,
    )
)
"""Expression of genes, without further fields of the samples."""
