"""Is the output a constant, does one loss term rule, was training flat? See ``checks`` for what else is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from torchcell.metrics.results import Results

COLLAPSED_BELOW = 0.02
"""Predictions that spread less than this share of the data's sd are collapsed. A calibrated predictor spreads by its
correlation with the truth, so one that stays below can explain no more than 4e-4 of the variance. Models whose
predictions for four perturbations correlated by 1.000 had spreads of .0107 and .0128."""
RULES_ABOVE = 0.9
"""A loss term above this share of the total is warned of."""


def spread(results: Results, system: str | None = None) -> dict[str, Any]:
    """How far predictions spread, relative to the data; changes from the reference are taken for expression.

    Only ``results.active`` outputs are judged: one that training has not reached is held constant on purpose.

    Args:
        results: The predictions.
        system: Whose; by default the model under test.

    Returns:
        ``active`` (outputs that are judged), ``over_samples`` (median over outputs of sd(prediction) / sd(measured)),
        ``over_outputs`` (median over samples, None below two outputs or outside expression, where outputs share no
        unit), ``per_output``, ``collapsed_outputs``, ``uncovered`` (measured values without a prediction),
        ``threshold``, and ``collapsed``: at least half of the outputs, or the profile over outputs, below the
        threshold; for expression of the predicted levels too: a constant level is no constant change, since each
        sample's own control is subtracted from it. A spread that cannot be computed is None.
    """
    every = np.arange(len(results.outputs))
    at = every if results.active is None else every[results.active]
    outputs = [results.outputs[place] for place in at]
    measured = np.asarray(results.measured, dtype=np.float64)
    predicted = np.asarray(results.systems[system or results.model], dtype=np.float64)
    uncovered = int((np.isnan(predicted) & ~np.isnan(measured)).sum())
    measured, predicted = measured[:, at], predicted[:, at]
    level_is_flat = False
    if results.per_gene and results.reference is not None:
        level = _relative_sd(predicted, measured, np.isnan(measured) | np.isnan(predicted))
        level_is_flat = bool((level < COLLAPSED_BELOW).sum() >= max((~np.isnan(level)).sum(), 1) / 2)
        other = results.reference if results.other_reference is None else results.other_reference
        measured, predicted = measured - results.reference[:, at], predicted - other[:, at]
    missing = np.isnan(measured) | np.isnan(predicted)
    per_output = _relative_sd(predicted, measured, missing)
    low = per_output < COLLAPSED_BELOW
    known = int((~np.isnan(per_output)).sum())
    over_outputs = None
    if results.per_gene and len(outputs) > 1:
        over_outputs = _median(_relative_sd(predicted.T, measured.T, missing.T))
    flat_profile = over_outputs is not None and over_outputs < COLLAPSED_BELOW
    return {
        "active": len(outputs),
        "over_samples": _median(per_output),
        "over_outputs": over_outputs,
        "per_output": {
            name: None if np.isnan(value) else float(value) for name, value in zip(outputs, per_output, strict=True)
        },
        "collapsed_outputs": [name for name, is_low in zip(outputs, low, strict=True) if is_low],
        "uncovered": uncovered,
        "threshold": COLLAPSED_BELOW,
        "collapsed": bool(level_is_flat or flat_profile or (known > 0 and low.sum() >= known / 2)),
    }


def loss_share_warnings(history: pd.DataFrame) -> list[dict[str, Any]]:
    """Loss terms above ``RULES_ABOVE`` of the total for an epoch.

    Args:
        history: One row per epoch with ``epoch`` and ``train/share/<term>``; a term alone rules nothing.

    Returns:
        Per such term: ``term``, ``n_epochs``, ``first_epoch``, ``worst`` share, and a sentence ``text``.
    """
    columns = [name for name in history.columns if name.startswith("train/share/")]
    found: list[dict[str, Any]] = []
    for name in columns if len(columns) > 1 else []:
        rules = history[name] > RULES_ABOVE
        if not rules.any():
            continue
        term, count = name.removeprefix("train/share/"), int(rules.sum())
        first, worst = int(history.loc[rules, "epoch"].min()), float(history[name].max())
        extent = f"up to {worst:.1%} of the total, above {RULES_ABOVE:.0%} in {count} epoch(s)"
        row = {"term": term, "n_epochs": count, "first_epoch": first, "worst": worst}
        found.append(row | {"text": f"the loss term {term!r} is {extent}"})
    return found


def converged(history: Sequence[float], min_delta: float = 1e-3, higher_is_better: bool = True) -> bool:
    """Whether the validation metric has stopped improving.

    Args:
        history: The metric by epoch; NaN where it was undefined.
        min_delta: What counts as improving.
        higher_is_better: Direction.

    Returns:
        False while the best of the last tenth of the epochs (one at least) exceeds the best before it by more
        than ``min_delta``; also with fewer than two epochs or nothing finite in either part: unknown.
    """
    value = np.asarray(history, dtype=np.float64) * (1 if higher_is_better else -1)
    tail = max(1, math.ceil(len(value) / 10))
    before, last = value[:-tail], value[-tail:]
    before, last = before[np.isfinite(before)], last[np.isfinite(last)]
    return bool(len(before) and len(last) and last.max() <= before.max() + min_delta)


def _relative_sd(predicted: np.ndarray, measured: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """sd of each column of ``predicted`` over that of ``measured``; NaN where the data itself is constant."""
    sd_predicted = _sd(np.where(missing, np.nan, predicted))
    sd_measured = _sd(np.where(missing, np.nan, measured))
    return np.divide(sd_predicted, sd_measured, out=np.full_like(sd_measured, np.nan), where=sd_measured > 0)


def _sd(x: np.ndarray) -> np.ndarray:
    held = (~np.isnan(x)).sum(0)
    centred = x - np.nansum(x, 0) / np.maximum(held, 1)
    return np.sqrt(np.nansum(centred**2, 0) / np.maximum(held, 1))


def _median(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmedian(values))
