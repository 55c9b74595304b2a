"""Every metric with its best and its no-skill value, and the list of them that each task is judged by."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np

from torchcell.cells import metrics as cells_metrics
from torchcell.evaluation import metrics
from torchcell.evaluation.bootstrap import Weights
from torchcell.io.errors import InputError, near, some
from torchcell.knowledge_graph import metrics as knowledge_graph_metrics

TOP = (20, 40, 80)
"""Genes of largest change that ``@k`` metrics of a drug's response look at."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As in the tables.
        function: Over samples: ``(truth [n], prediction [n], weights) -> [R]``; over genes:
            ``Profiles`` -> [n].
        best: Value of a perfect prediction.
        no_skill: What knowing nothing scores: a number, ``mean`` (the score of the truth's mean),
            ``prevalence`` (the share of positives), ``fixed`` (the mean rank of one vector for all samples) or
            ``undefined``.
        higher_is_better: Direction.
        tasks: Where it is used.
        sentence: What it says, for the reader of the report.
        over: ``samples``, or ``genes`` of each sample and then the mean over samples.
        beside: Systems without which its values mislead, so that it is shown beside all of them or not at all.
    """

    name: str
    function: Callable[..., np.ndarray]
    best: float
    no_skill: float | Literal["mean", "prevalence", "fixed", "undefined"]
    higher_is_better: bool
    tasks: tuple[str, ...]
    sentence: str
    over: Literal["samples", "genes"] = "samples"
    beside: tuple[str, ...] = ()

    def no_skill_value(self, truth: np.ndarray, context: np.ndarray | None = None) -> float:
        """The no-skill value on the measured ``truth`` [n] (NaN left out), NaN where it has none.

        Args:
            truth: Measured values of one output.
            context: Name of the samples that each is told apart from [n]; none: all.
        """
        truth = np.asarray(truth, dtype=np.float64)
        held = ~np.isnan(truth)
        truth = truth[held]
        if self.no_skill == "fixed":
            _, n = np.unique(np.zeros(len(held)) if context is None else context, return_counts=True)
            n = n[n > 1]
            return float(((n + 1) / 2).sum() / n.sum()) if n.size else float("nan")
        if not isinstance(self.no_skill, str):
            return float(self.no_skill)
        if not len(truth) or self.no_skill == "undefined" or self.over == "genes":
            return float("nan")
        if self.no_skill == "prevalence":
            return float(truth.mean())
        return float(self.function(truth, np.full_like(truth, truth.mean()), Weights.ones(len(truth)))[0])


_SCREEN, _LABEL, _CELL, _RANKS = ("regression",), ("binary",), ("expression",), ("ranking",)
_DRUG, _SETS, _PER_GENE = ("response",), ("cells",), ("expression", "response", "cells")
# fmt: off
REGISTRY: tuple[Metric, ...] = (
    Metric("pearson", metrics.pearson, 1, 0.0, True, _SCREEN, "linear correlation over samples"),
    Metric("spearman", metrics.spearman, 1, 0.0, True, _SCREEN, "rank correlation over samples"),
    Metric("r2", metrics.r2, 1, "mean", True, _SCREEN, "share of the variance explained; below 0 is worse than the mean"),  # noqa: E501
    Metric("mse", metrics.mse, 0, "mean", False, _SCREEN, "mean squared error"),
    Metric("rmse", metrics.rmse, 0, "mean", False, _SCREEN, "root mean squared error, in the phenotype's units"),
    Metric("mae", metrics.mae, 0, "mean", False, _SCREEN, "mean absolute error, in the phenotype's units"),
    Metric("auroc", metrics.auroc, 1, 0.5, True, _LABEL, "chance that a positive is scored above a negative"),
    Metric("auprc", metrics.auprc, 1, "prevalence", True, _LABEL, "average precision; no skill is the prevalence"),
    Metric("brier", metrics.brier, 0, "mean", False, _LABEL, "mean squared error of the predicted probability; undefined for scores that are no probabilities"),  # noqa: E501
    Metric("pearson_delta", metrics.pearson_delta, 1, "undefined", True, (*_CELL, *_SETS), "correlation over genes of true and predicted change, mean over samples", "genes"),  # noqa: E501
    Metric("mse", metrics.mse_over_genes, 0, "mean", False, _PER_GENE, "squared error over genes, mean over samples", "genes"),  # noqa: E501
    Metric("mae", metrics.mae_over_genes, 0, "mean", False, _PER_GENE, "absolute error over genes, mean over samples", "genes"),  # noqa: E501
    Metric("skill", metrics.skill, 1, 0.0, True, (*_DRUG, *_SETS), "1 - squared error / squared error of the training mean that the primary metric is centered on", "genes"),  # noqa: E501
    Metric("pearson_de", metrics.pearson_delta, 1, "undefined", True, _DRUG, "correlation over all genes of true and predicted change from the control; a constant scores well, since both changes hold the control", "genes"),  # noqa: E501
    Metric("pearson_delta_plate", metrics.pearson_delta_plate, 1, 0.0, True, _DRUG, "the same after the plate's treated mean is removed; that mean itself scores 0", "genes"),  # noqa: E501
    *(Metric(f"pearson2_de@{k}", partial(metrics.pearson2_top, k=k), 1, "undefined", True, _DRUG, f"squared correlation of changes on the {k} genes that changed most in a replicate", "genes") for k in TOP),  # noqa: E501
    *(Metric(f"r2_top@{k}", partial(metrics.r2_top, k=k), 1, 0.0, True, _DRUG, f"share of the variance of the change explained on the {k} genes that changed most in a replicate", "genes") for k in TOP),  # noqa: E501
    *(Metric(f"precision_{way}@20", partial(metrics.precision_top, k=20, up=way == "up"), 1, "undefined", True, _DRUG, f"share of the 20 genes predicted most {way} that are among the 100 most {way} in a replicate", "genes") for way in ("up", "down")),  # noqa: E501
    *(Metric(f"pearson2_de@{k}_published", partial(metrics.pearson2_top, k=k, published=True), 1, "undefined", True, _DRUG, f"as published: the {k} genes are chosen on the sample they are scored on, so that a constant scores high", "genes", ("constant", "gene_mean")) for k in TOP),  # noqa: E501
    *(Metric(f"r2_top@{k}_published", partial(metrics.r2_top, k=k, published=True), 1, 0.0, True, _DRUG, f"as published: the {k} genes are chosen on the sample they are scored on, where its own noise lies too", "genes", ("constant", "gene_mean")) for k in TOP),  # noqa: E501
    Metric("pearson_delta_perturbed", metrics.pearson_delta_perturbed, 1, 0.0, True, _SETS, "the same from the mean of the training perturbations, so that what all perturbations share earns nothing, and that mean itself scores 0", "genes"),  # noqa: E501
    Metric("mse_top20", cells_metrics.mse_top20, 0, "undefined", False, _SETS, "squared error over the 20 genes of largest true effect without the perturbed ones; no skill is the row no_change", "genes"),  # noqa: E501
    Metric("pds", cells_metrics.pds, 1, "fixed", True, _SETS, "1 - r / N, r other conditions' true changes nearer (L1) to the prediction than its own", "genes"),  # noqa: E501
    Metric("pds_cosine", cells_metrics.pds_cosine, 1, "fixed", True, _SETS, "the same by the cosine, which sees only the direction of a change", "genes"),  # noqa: E501
    Metric("des", cells_metrics.des, 1, "undefined", True, _SETS, "share of the significantly changed genes among as many of largest predicted change; a constant scores their share of all genes", "genes"),  # noqa: E501
    Metric("centroid_accuracy", cells_metrics.centroid_accuracy, 1, 0.5, True, _SETS, "share of the other conditions that are farther from the prediction than its own", "genes"),  # noqa: E501
    Metric("e_distance", cells_metrics.e_distance, 0, "undefined", False, _SETS, "energy distance of the measured cells to control cells that are moved by the predicted change, at most 64 of each; no skill is the row no_change", "genes"),  # noqa: E501
    Metric("mrr", knowledge_graph_metrics.mrr, 1, "undefined", True, _RANKS, "mean of 1 / rank among all candidates that are not known to be true"),  # noqa: E501
    Metric("hits@1", knowledge_graph_metrics.hits_at_1, 1, "undefined", True, _RANKS, "share that ranks first"),
    Metric("hits@10", knowledge_graph_metrics.hits_at_10, 1, "undefined", True, _RANKS, "share that ranks among the first ten"),  # noqa: E501
)
# fmt: on

PROFILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "regression": ("pearson", "spearman", "r2", "mse", "rmse", "mae"),
        "binary": ("auroc", "auprc", "brier"),
        "expression": ("pearson_delta", "mse", "mae"),
        "response": (
            "pearson_de",
            "pearson_delta_plate",
            "skill",
            "mse",
            "mae",
            *(f"pearson2_de@{k}" for k in TOP),
            *(f"r2_top@{k}" for k in TOP),
            "precision_up@20",
            "precision_down@20",
            *(f"pearson2_de@{k}_published" for k in TOP),
            *(f"r2_top@{k}_published" for k in TOP),
        ),
        "cells": (
            "pearson_delta",
            "pearson_delta_perturbed",
            "skill",
            "mse",
            "mae",
            "mse_top20",
            "pds",
            "pds_cosine",
            "des",
            "centroid_accuracy",
            "e_distance",
        ),
        "ranking": ("mrr", "hits@1", "hits@10"),
    }
)
"""The metrics of each task, in the order of the table."""

PRIMARY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "regression": ("pearson",),
        "binary": ("auroc",),
        "expression": ("pearson_delta",),
        "response": ("pearson_delta_plate", "pearson_de"),
        "cells": ("pearson_delta_perturbed", "pearson_delta"),
        "ranking": ("mrr",),
    }
)
"""The metric that decides the verdict of each task: the first that has a value on the data at hand. A held-out cell
line has no plate with a training mean, and no change from it."""

CALIBRATION: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "regression": ("r2",),
        "binary": ("brier",),
        "expression": ("mse",),
        "response": ("skill",),
        "cells": ("skill",),
        "ranking": (),
    }
)
"""What stands beside the primary metric: a model that ranks well and is off in size is not called better without it."""

BESIDE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "regression": ("pearson", "spearman", "r2", "mae"),
        "binary": ("auroc", "auprc", "brier"),
        "expression": ("pearson_delta", "mse"),
        "response": ("pearson_delta_plate", "pearson_de", "skill"),
        "cells": ("pearson_delta_perturbed", "pearson_delta", "skill", "pds", "des"),
        "ranking": ("mrr", "hits@10"),
    }
)
"""The metrics that are compared with every baseline and shown on a narrow screen; only the primary one decides."""


def metric(name: str, task: str) -> Metric:
    """The metric ``name`` of ``task``; an unknown one is an error with near matches."""
    for one in REGISTRY:
        if one.name == name and task in one.tasks:
            return one
    known = [one.name for one in REGISTRY if task in one.tasks]
    raise InputError(f"no metric {name!r} for the task {task!r}; there are {some(near(name, known) or known)}")


def profile(task: str, systems: Container[str] | None = None) -> tuple[Metric, ...]:
    """The metrics of ``task``, in the order of the table; with ``systems`` only those that may be shown beside them."""
    if task not in PROFILES:
        raise InputError(f"no metrics for the task {task!r}; there are {some(PROFILES)}")
    every = [metric(name, task) for name in PROFILES[task]]
    return tuple(one for one in every if systems is None or all(name in systems for name in one.beside))


def higher_is_better(name: str) -> bool:
    """Direction of a metric by its name in a table, ``<output>/<metric>`` or the metric alone."""
    return {one.name: one.higher_is_better for one in REGISTRY}.get(name.rpartition("/")[2], True)
