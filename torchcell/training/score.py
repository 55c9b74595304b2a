"""The end of every run: the model, its baselines and the ceiling, scored by one evaluator on one part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.evaluation.checks import (
    UNCHECKED,
    Check,
    collapse,
    converged,
    input_use,
    loss_share_warnings,
    measurable_signal,
)
from torchcell.evaluation.evaluate import Evaluation, evaluate
from torchcell.evaluation.registry import every_metric, higher_is_better
from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError, near
from torchcell.io.progress import stage
from torchcell.report.sections import Section, contribution_sections
from torchcell.training.baselines import Baselines, departures, fit_baselines, saved_systems
from torchcell.training.comparators import Comparator
from torchcell.training.embed import report_latents
from torchcell.training.predict import predict_inputs, predict_part, predict_without_inputs

NETWORK_ALONE = "network_alone"
"""Row of what the network of a model with a prior predicts without it; the prior's own row is its baseline's."""


def judged_as(ckpt: str | Path) -> str:
    """The verdict of the run that a checkpoint belongs to, in the words of its report; empty where there is no run.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, whose verdict it is, or another one of that run.
    """
    path = Path(ckpt).resolve()
    file = path.parents[1] / "metrics.json"
    if path.parent.name != "checkpoints" or not file.is_file():
        return ""
    try:
        summary = json.loads(file.read_text())
    except ValueError:
        return ""
    verdict = summary.get("verdict")
    if not isinstance(verdict, dict):  # of a run before 2026-11-29
        return ""
    whose = "" if path.stem == "best" else f" (of best.ckpt, not of {path.name})"
    return f"its run's verdict{whose}: {summary.get('model')}: {verdict['text']}"


def better_system(ckpt: str | Path) -> str:
    """Which baseline of a run was better than its model on the primary metric; empty where none was.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, or another checkpoint of the run.
    """
    if (found := _primary_values(ckpt)) is None:
        return ""
    summary, metric, values = found
    known = saved_systems(Path(ckpt).resolve())
    own, others = float(values[summary["model"]]), values[[name for name in values.index if name in known]].dropna()
    sign = 1 if higher_is_better(metric) else -1
    if others.empty or not (others * sign).max() > own * sign:
        return ""
    name = str((others * sign).idxmax())
    said = f"{name} was better on {summary['part']}: {metric} {others[name]:.3f} against {own:.3f}"
    return f"{said}; system={name} predicts with it"


def score_of(ckpt: str | Path, system: str) -> str:
    """What a baseline of the run scored on the primary metric, beside the model; empty where there is no run.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, or another checkpoint of the run.
        system: Name of the baseline.
    """
    if (found := _primary_values(ckpt)) is None or system not in found[2]:
        return ""
    summary, metric, values = found
    model = summary["model"]
    return f"{system} on {summary['part']}: {metric} {values[system]:.3f}; {model}: {values[model]:.3f}"


def _primary_values(ckpt: str | Path) -> tuple[dict[str, Any], str, pd.Series] | None:
    """Content of a run's ``metrics.json``, its primary metric, and the value of each system on the part; or nothing."""
    run = Path(ckpt).resolve().parents[1]
    try:
        summary = json.loads((run / "metrics.json").read_text())
        table, metric = pd.read_csv(run / "metrics.csv"), summary["verdict"]["metric"]
        values = table[(table["metric"] == metric) & (table["part"] == summary["part"])].set_index("system")["value"]
        return (summary, metric, values) if summary["model"] in values else None
    except (OSError, ValueError, KeyError, TypeError):  # no run, or one of an earlier version
        return None


@dataclass(frozen=True, eq=False)
class Scored:
    """What a run found.

    Attributes:
        results: Predictions of every system on the part; the evaluation has further ones, e.g. of a ranking.
        evaluation: Table of metrics and the verdict.
        summary: Content of ``metrics.json``.
        files: What was written.
        sections: For the report, of what only the pass over the part can tell, by heading; made when it is written.
        baselines: What the baselines were fitted to.
    """

    results: Results
    evaluation: Evaluation
    summary: dict[str, Any]
    files: list[Path]
    sections: dict[str, Callable[[], list[Section]]] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=lambda: Baselines({}))


@dataclass(frozen=True)
class Scoring:
    """How a part is scored.

    Attributes:
        part: Which part.
        n_boot: Bootstrap resamples.
        seed: Of the resamples and the shuffles; the baselines have their own, in their config.
        primary: The metric that decides, where a config named it before the run; none: the task's.
        min_delta: What counts as an improvement of the validation score.
        umap: Whether the report's map of latents has a UMAP too; it takes about ten seconds.
        data_changed: Whether the data are others than those the model was trained on.
        started_elsewhere: Whether its first weights come from another split of the same data, whose training part may
            hold what is tested here.
    """

    part: str = "test"
    n_boot: int = 1000
    seed: int = 0
    primary: str | None = None
    min_delta: float = 1e-3
    umap: bool = False
    data_changed: bool = False
    started_elsewhere: bool = False


def scoring_of(cfg: DictConfig, asked: DictConfig | None = None) -> Scoring:
    """How the run of ``cfg`` scores its model; or how ``evaluate`` does, whose own keys come first where set.

    Raises:
        InputError: A primary metric that is none.
    """
    primary = cfg.evaluation.primary if "primary" in cfg.evaluation else None  # an earlier version had no such key
    known = list(dict.fromkeys(one.name for one in every_metric()))
    if primary is not None and primary not in known:
        raise InputError(
            f"evaluation.primary={primary}: no metric is called so; there are {near(primary, known) or known}"
        )
    found = Scoring(
        part=cfg.evaluation.part,
        n_boot=cfg.evaluation.n_boot,
        seed=cfg.seed,
        primary=primary,
        min_delta=cfg.trainer.early_stopping.min_delta,
        umap=cfg.evaluation.umap,
    )
    if asked is None:
        return found
    return replace(found, **{key: asked[key] for key in ("part", "n_boot", "umap") if asked.get(key) is not None})


@stage("scoring")
def score(
    trainer: lightning.Trainer,
    model: Model,
    datamodule: RecordDataModule,
    baselines: Mapping[str, Any],
    how: Scoring,
    history: pd.DataFrame | None = None,
    comparators: Mapping[str, Comparator] = MappingProxyType({}),
) -> Scored | None:
    """Predict with the model, the baselines and the ceiling, evaluate them, and check what the verdict rests on.

    Args:
        trainer: Runs the pass over the part, on however many processes.
        model: With the weights to be scored.
        datamodule: The data with its split.
        baselines: Configs by name, see ``conf/baselines``.
        how: What is scored, and how.
        history: One row an epoch, if the model was trained here.
        comparators: Other trained models by name, with what they predict of the same.

    Returns:
        The outcome, nothing written yet; None on all processes but the first.
    """
    prediction = predict_part(trainer, model, datamodule, how.part)
    if model.stacking is not None:
        with model.without_prior():
            alone = {"": predict_part(trainer, model, datamodule, how.part)}
        comparators = {NETWORK_ALONE: Comparator(Path(NETWORK_ALONE), alone, None), **comparators}
    spoilt = predict_without_inputs(trainer, model, datamodule, how.part, how.seed)
    if not trainer.is_global_zero:
        return None
    # One process is enough from here, and the others have left.
    device = trainer.strategy.root_device
    fitted = fit_baselines(datamodule, baselines, how.part)
    every = _all_results(model, datamodule, fitted, how, prediction, device, comparators)
    flat = None if history is None else converged(history["val/score"].tolist(), how.min_delta)
    evaluation = evaluate(every, how.n_boot, how.seed, flat, how.primary)
    evaluation = replace(
        evaluation, comparators=tuple(comparators[one.comparator].noted(one) for one in evaluation.comparators)
    )
    weakened = departures(baselines)
    models = evaluation.table[~evaluation.table["system"].isin(every[0].comparators)]
    inspected = datamodule.TASK.inspect(model, models, how.seed)
    evaluation = evaluation.with_checks(
        *input_checks(every[0], spoilt, datamodule.inputs(), how),
        measurable_signal(datamodule.halves(how.part), every[0].group, how.n_boot, how.seed),
        *map(collapse, (*model.collapses(), *inspected.collapsed)),
        *starting_weights(how),
    ).with_evidence(
        data_changed=how.data_changed,
        max_epochs=None if history is None else 2 * len(history),
        notes=(*weakened, *(() if history is None else first_epoch_note(history))),
    )
    checks = checks_summary(evaluation, history, inspected.checks)
    summary = _summary(model, datamodule, evaluation, checks, how, flat) | {"baseline_departures": list(weakened)}
    if comparators:
        summary["comparators"] = {
            one.comparator: comparators[one.comparator].facts | one.summary() for one in evaluation.comparators
        }

    def latents() -> list[Section]:
        return report_latents(model, datamodule, every[0], device, how.umap, how.seed)

    sections = {"Maps of latents": latents, **inspected.sections}
    for name, added in fitted.contributions.items():
        sections[f"What carries {name}"] = partial(contribution_sections, name, added, every[0].outputs)
    return Scored(every[0], evaluation, summary, [], sections, fitted)


def starting_weights(how: Scoring) -> list[Check]:
    """Weights that may know the test samples withhold the verdict."""
    if not how.started_elsewhere:
        return []
    said = "its first weights come from another split of these data, and may have learned from what is tested here"
    return [Check("starting_weights", "failed", said, said)]


def _all_results(
    model: Model,
    datamodule: RecordDataModule,
    baselines: Baselines,
    how: Scoring,
    prediction: np.ndarray,
    device: torch.device,
    comparators: Mapping[str, Comparator],
) -> list[Results]:
    """What every system predicts of all that is asked of the part."""
    name, ceiling = type(model).__name__, datamodule.ceiling(datamodule.record(how.part))
    kept = predict_inputs(model, datamodule, how.part, prediction, device)
    predictions = {what: {name: own} for what, own in kept.items()}
    for comparator, found in comparators.items():
        for what, theirs in found.predictions.items():
            predictions[what][comparator] = theirs
    for what, by_baseline in baselines.predictions.items():
        predictions[what] |= by_baseline
    if ceiling is not None:
        predictions[""]["replicate_ceiling"] = ceiling
    active = model.active_outputs()
    mask = None if active is None else active.cpu().numpy()
    scored = datamodule.results(how.part, predictions, name, None if ceiling is None else "replicate_ceiling")
    return [replace(one, active=mask, comparators=tuple(comparators)) for one in scored]


def input_checks(
    results: Results, spoilt: Mapping[str, list[np.ndarray]], inputs: Sequence[str], how: Scoring
) -> list[Check]:
    """Whether each input is used; the first decides."""
    if not inputs:
        return [Check(UNCHECKED, "not applicable", "these data do not say how their inputs are shuffled")]
    found = []
    for key, predicted in spoilt.items():
        name, _, what = key.rpartition("_")
        if what == "constant" and not predicted:
            continue
        decides = what == "shuffled" and name == inputs[0]
        found.append(input_use(results, predicted, key, decides, how.n_boot, how.seed))
    return found


def first_epoch_note(history: pd.DataFrame) -> tuple[str, ...]:
    """Says so where no later epoch was better than the first."""
    score = history["val/score"].to_numpy()
    if len(score) < 2 or np.isnan(score).all() or int(np.nanargmax(score)) > 0:
        return ()
    return (f"its best epoch is the first of {len(score)}: training on made it no better",)


def checks_summary(
    evaluation: Evaluation, history: pd.DataFrame | None, inspected: Mapping[str, Any]
) -> dict[str, Any]:
    """``checks`` of ``metrics.json``."""
    checks: dict[str, Any] = {"spread": evaluation.spread, **inspected}
    checks |= {check.name: check.summary() for check in evaluation.evidence.checks}
    if history is not None:
        checks["loss_share_warnings"] = loss_share_warnings(history)
    return checks


def _summary(
    model: Model,
    datamodule: RecordDataModule,
    evaluation: Evaluation,
    checks: dict[str, Any],
    how: Scoring,
    flat: bool | None,
) -> dict[str, Any]:
    """Content of ``metrics.json``."""
    split = datamodule.split
    names = {name.rpartition("/")[2] for name in evaluation.table["metric"]}
    return {
        "model": type(model).__name__,
        "part": how.part,
        "n_boot": how.n_boot,
        "outputs": list(evaluation.results[0].outputs[:16]),
        "verdict": evaluation.verdict.summary(),
        "collapsed": evaluation.verdict.collapsed,
        "checks": checks,
        "lower_is_better": sorted({name for name in names if not higher_is_better(name)}),
        "split_hash": split.hash,
        "data_fingerprint": datamodule.spec.data_fingerprint,
        "split": {
            "name": split.name,
            "assignment_hash": split.assignment_hash or split.hash,
            "method": split.method,
            "seed": split.seed,
            **split.counts(),
        },
        "converged": flat,
    }
