"""The end of every run: the model, its baselines and the ceiling, scored by one evaluator on one part."""

from __future__ import annotations

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
from torchcell.core.task import Inspection
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
from torchcell.evaluation.results import NETWORK_ALONE, Results
from torchcell.io.errors import InputError, near
from torchcell.io.progress import stage
from torchcell.io.run_files import read_json, read_scores
from torchcell.report.sections import Section, contribution_sections
from torchcell.training.baselines import Baselines, fit_baselines, saved_systems
from torchcell.training.comparators import Comparator
from torchcell.training.embed import report_latents
from torchcell.training.predict import predict_inputs, predict_part, predict_without_inputs
from torchcell.training.standard_baselines import departures


def judged_as(ckpt: str | Path) -> str:
    """The verdict of the run of a checkpoint, as in its report; empty where there is no run.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, whose verdict it is, or another one of that run.
    """
    path = Path(ckpt).resolve()
    file = path.parents[1] / "metrics.json"
    if path.parent.name != "checkpoints" or not file.is_file():
        return ""
    try:
        summary = read_json(file)
    except InputError:
        return ""
    verdict = summary.get("verdict")
    if not isinstance(verdict, dict):  # a run before 2026-11-29
        return ""
    other = "" if path.stem == "best" else f" (of best.ckpt, not of {path.name})"
    return " ".join(f"its run's verdict{other}: {summary.get('model')}: {verdict.get('text')}".split())


def better_system(ckpt: str | Path) -> str:
    """A sentence on the baseline of a run that was better than its model on the primary metric; empty without one.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, or another checkpoint of the run.
    """
    if (result := _primary_values(ckpt)) is None:
        return ""
    summary, metric, values = result
    saved = saved_systems(Path(ckpt).resolve())
    own, others = float(values[summary["model"]]), values[[name for name in values.index if name in saved]].dropna()
    sign = 1 if higher_is_better(metric) else -1
    if others.empty or not (others * sign).max() > own * sign:
        return ""
    name = str((others * sign).idxmax())
    text = f"{name} was better on {summary['part']}: {metric} {others[name]:.3f} against {own:.3f}"
    return f"{text}; system={name} predicts with it"


def score_of(ckpt: str | Path, system: str) -> str:
    """The scores of a baseline and of the model on the primary metric; empty where there is no run.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, or another checkpoint of the run.
        system: Name of the baseline.
    """
    if (result := _primary_values(ckpt)) is None or system not in result[2]:
        return ""
    summary, metric, values = result
    model = summary["model"]
    return f"{system} on {summary['part']}: {metric} {values[system]:.3f}; {model}: {values[model]:.3f}"


def _primary_values(ckpt: str | Path) -> tuple[dict[str, Any], str, pd.Series] | None:
    """Content of a run's ``metrics.json``, its primary metric, and the value of each system on the part; or None."""
    run = Path(ckpt).resolve().parents[1]
    try:
        summary = read_json(run / "metrics.json")
        table, metric = read_scores(run / "metrics.csv"), summary["verdict"]["metric"]
        values = table[(table["metric"] == metric) & (table["part"] == summary["part"])].set_index("system")["value"]
        values = values[~values.index.duplicated()]
        return (summary, metric, values) if summary["model"] in values else None
    except (OSError, ValueError, KeyError, TypeError):  # no run, or one of an earlier version
        return None


@dataclass(frozen=True, eq=False)
class Scored:
    """The scored outcome of a run.

    Attributes:
        results: Predictions of every system on the part; the evaluation has further results, e.g. of a ranking.
        evaluation: Table of metrics and the verdict.
        summary: Content of ``metrics.json``.
        files: Files that were written.
        sections: Functions that make further sections of the report, by heading.
        baselines: Fitted states of the baselines.
    """

    results: Results
    evaluation: Evaluation
    summary: dict[str, Any]
    files: list[Path]
    sections: dict[str, Callable[[], Sequence[Section]]] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=lambda: Baselines({}))


@dataclass(frozen=True)
class Scoring:
    """How a part is scored.

    Attributes:
        part: Part of the split.
        n_boot: Number of bootstrap resamples.
        seed: Seed of resamples and shuffles; baselines have their own, in their config.
        primary: The primary metric, where the config named it before the run; none: that of the task.
        min_delta: Smallest improvement of the validation score that counts.
        umap: Whether the report has a UMAP of the embeddings too; it takes about ten seconds.
        data_changed: Whether the data differ from those that the model was trained on.
        started_elsewhere: Whether the first weights come from another split of the same data, whose training part may
            contain test samples of this one.
    """

    part: str = "test"
    n_boot: int = 1000
    seed: int = 0
    primary: str | None = None
    min_delta: float = 1e-3
    umap: bool = False
    data_changed: bool = False
    started_elsewhere: bool = False


def scoring_of(cfg: DictConfig, overrides: DictConfig | None = None) -> Scoring:
    """The scoring of a run with config ``cfg``; keys of ``overrides``, the config of ``evaluate``, come first if set.

    Raises:
        InputError: An unknown primary metric.
    """
    primary = cfg.evaluation.primary if "primary" in cfg.evaluation else None  # an earlier version had no such key
    names = list(dict.fromkeys(metric.name for metric in every_metric()))
    if primary is not None and primary not in names:
        raise InputError(
            f"evaluation.primary={primary}: no metric is called so; there are {near(primary, names) or names}"
        )
    scoring = Scoring(
        part=cfg.evaluation.part,
        n_boot=cfg.evaluation.n_boot,
        seed=cfg.seed,
        primary=primary,
        min_delta=cfg.trainer.early_stopping.min_delta,
        umap=cfg.evaluation.umap,
    )
    if overrides is None:
        return scoring
    keys = [key for key in ("part", "n_boot", "umap") if overrides.get(key) is not None]
    return replace(scoring, **{key: overrides[key] for key in keys})


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
    """Predict with model, baselines and ceiling, evaluate the predictions, and make the checks of the verdict.

    Args:
        trainer: Runs the pass over the part, in any number of processes.
        model: The model with the weights to score.
        datamodule: The data with its split.
        baselines: Configs by name, see ``conf/baselines``.
        how: Settings of the scoring.
        history: One row for each epoch, if the model was trained here.
        comparators: Other trained models by name, with their predictions.

    Returns:
        The outcome, nothing written yet; None in all processes but the first.
    """
    prediction = predict_part(trainer, model, datamodule, how.part)
    comparators = _network_alone(trainer, model, datamodule, how.part) | dict(comparators)
    ablated = predict_without_inputs(trainer, model, datamodule, how.part, how.seed)
    if not trainer.is_global_zero:
        return None
    # From here one process is enough; the others have returned.
    device = trainer.strategy.root_device
    name, active = type(model).__name__, model.active_outputs()
    own = _own_baseline(model, datamodule, how.part, prediction)
    under_test = UnderTest(
        name,
        predict_inputs(model, datamodule, how.part, prediction, device),
        ablated,
        None if active is None else active.cpu().numpy(),
        tuple(model.collapses()),
        partial(datamodule.TASK.inspect, model),
        own,
    )
    scored = judged(under_test, datamodule, baselines, how, history, comparators)
    latents = partial(report_latents, model, datamodule, scored.results, device, how.umap, how.seed)
    own_sections = partial(model.report_sections, history)
    return replace(scored, sections={"Maps of latents": latents, **scored.sections, f"What {name} adds": own_sections})


@dataclass(frozen=True, eq=False)
class UnderTest:
    """A system that is judged, with its predictions.

    Attributes:
        name: Of the system.
        predictions: What it predicts, by name as in ``evaluation_inputs``.
        ablated: Predictions of the part [n, T] with inputs shuffled or held constant, by what was done.
        active: Outputs that it was trained on, bool [T]; none: all.
        collapses: A sentence for each part of it that has collapsed.
        inspect: Looks into it, see ``Task.inspect``; none: nothing to look into.
        own_baseline: Name of the baseline that it is itself.
        checks: Further checks of it.
        remarks: Texts for the verdict's line, and for that of several runs together.
    """

    name: str
    predictions: Mapping[str, np.ndarray]
    ablated: Mapping[str, list[np.ndarray]]
    active: np.ndarray | None = None
    collapses: tuple[str, ...] = ()
    inspect: Callable[[pd.DataFrame, int], Inspection] | None = None
    own_baseline: str | None = None
    checks: tuple[Check, ...] = ()
    remarks: tuple[str, ...] = ()


def judged(
    system: UnderTest,
    datamodule: RecordDataModule,
    baselines: Mapping[str, Any],
    how: Scoring,
    history: pd.DataFrame | None = None,
    comparators: Mapping[str, Comparator] = MappingProxyType({}),
) -> Scored:
    """Fit the baselines, evaluate all predictions, and make the checks of the verdict; nothing is written yet.

    Args:
        system: The system under test.
        datamodule: The data with its split.
        baselines: Configs by name, see ``conf/baselines``.
        how: Settings of the scoring.
        history: One row for each epoch, if the system was trained here.
        comparators: Other trained models by name, with their predictions.
    """
    own = system.own_baseline
    weakened = departures(baselines, datamodule.TASK.package)
    if own is not None:
        baselines = {name: config for name, config in baselines.items() if name != own}
        weakened = (*weakened, f"the baseline {own} is the model itself")
    fitted = fit_baselines(datamodule, baselines, how.part)
    weakened = (*weakened, *fitted.notes)
    all_results = _all_results(system, datamodule, fitted, how, comparators)
    has_converged = (
        None if history is None or own is not None else converged(history["val/score"].tolist(), how.min_delta)
    )
    evaluation = evaluate(all_results, how.n_boot, how.seed, has_converged, how.primary)
    evaluation = replace(
        evaluation, comparators=tuple(comparators[one.comparator].noted(one) for one in evaluation.comparators)
    )
    first = () if history is None else first_epoch_note(history)
    models = evaluation.table[~evaluation.table["system"].isin(all_results[0].comparators)]
    inspected = Inspection() if system.inspect is None else system.inspect(models, how.seed)
    evaluation = evaluation.with_checks(
        *input_checks(all_results[0], system.ablated, datamodule.inputs(), how),
        measurable_signal(datamodule.halves(how.part), all_results[0].group, how.n_boot, how.seed),
        *map(collapse, (*system.collapses, *inspected.collapsed)),
        *starting_weights(how),
        *system.checks,
    ).with_evidence(
        data_changed=how.data_changed,
        max_epochs=None if history is None else 2 * len(history),
        notes=(*weakened, *first, *system.remarks),
    )
    checks = checks_summary(evaluation, history, inspected.checks)
    summary = _summary(system.name, datamodule, evaluation, checks, how, has_converged)
    summary |= {"baseline_departures": list(weakened), "remarks": list(system.remarks)}
    if comparators:
        summary["comparators"] = {
            one.comparator: comparators[one.comparator].facts | one.summary() for one in evaluation.comparators
        }
    sections: dict[str, Callable[[], Sequence[Section]]] = {
        **inspected.sections,
        **_what_carries(fitted, all_results[0]),
    }
    return Scored(all_results[0], evaluation, summary, [], sections, fitted)


def _what_carries(baselines: Baselines, results: Results) -> dict[str, Callable[[], list[Section]]]:
    """A bar plot of what each source adds to a baseline that is a sum."""
    return {
        f"What carries {name}": partial(contribution_sections, name, added, results.outputs)
        for name, added in baselines.contributions.items()
    }


def _network_alone(
    trainer: lightning.Trainer, model: Model, datamodule: RecordDataModule, part: str
) -> dict[str, Comparator]:
    """What the network of a model with a prior predicts without it, as a comparator; nothing without a prior."""
    if not model.has_prior or model.is_prior_alone:
        return {}
    with model.without_prior():
        prediction = predict_part(trainer, model, datamodule, part)
        if not trainer.is_global_zero:
            return {}
        answers = predict_inputs(model, datamodule, part, prediction, trainer.strategy.root_device)
    return {NETWORK_ALONE: Comparator(Path(NETWORK_ALONE), answers, None)}


def _own_baseline(model: Model, datamodule: RecordDataModule, part: str, prediction: np.ndarray) -> str | None:
    """Name of the baseline that the model is, as it says itself and as its predictions [n, T] show; or None.

    What it says is not enough: a model that is something else would be spared the strongest baseline.
    """
    if not model.is_prior_alone or datamodule.prior is None:
        return None
    packed: Any = datamodule.packed
    said = packed.prior[torch.from_numpy(datamodule.split.index(part)), : prediction.shape[1]]
    said = model.tabulate(said).numpy()
    known = ~np.isnan(said)
    same = known.any() and np.allclose(prediction[known], said[known], rtol=1e-4, atol=1e-6)
    return datamodule.prior.name if same else None


def starting_weights(how: Scoring) -> list[Check]:
    """Weights that may know the test samples withhold the verdict."""
    if not how.started_elsewhere:
        return []
    text = "its first weights come from another split of these data, and may have learned from test samples"
    return [Check("starting_weights", "failed", text, text)]


def _all_results(
    system: UnderTest,
    datamodule: RecordDataModule,
    baselines: Baselines,
    how: Scoring,
    comparators: Mapping[str, Comparator],
) -> list[Results]:
    """The predictions of every system for all evaluation inputs of the part."""
    ceiling = datamodule.ceiling(datamodule.record(how.part))
    predictions = {record: {system.name: prediction} for record, prediction in system.predictions.items()}
    for label, comparator in comparators.items():
        for record, prediction in comparator.predictions.items():
            predictions[record][label] = prediction
    for record, by_baseline in baselines.predictions.items():
        predictions[record] |= by_baseline
    if ceiling is not None:
        predictions[""]["replicate_ceiling"] = ceiling
    scored = datamodule.results(how.part, predictions, system.name, None if ceiling is None else "replicate_ceiling")
    return [replace(one, active=system.active, comparators=tuple(comparators)) for one in scored]


def input_checks(
    results: Results, ablated: Mapping[str, list[np.ndarray]], inputs: Sequence[str], how: Scoring
) -> list[Check]:
    """Check whether each input is used; the check of the first decides."""
    if not inputs:
        return [Check(UNCHECKED, "not applicable", "these data do not say how their inputs are shuffled")]
    checks = []
    for key, predicted in ablated.items():
        name, _, change = key.rpartition("_")
        if change == "constant" and not predicted:
            continue
        decides = change == "shuffled" and name == inputs[0]
        checks.append(input_use(results, predicted, key, decides, how.n_boot, how.seed))
    return checks


def first_epoch_note(history: pd.DataFrame) -> tuple[str, ...]:
    """A note where no later epoch was better than the first."""
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
    name: str,
    datamodule: RecordDataModule,
    evaluation: Evaluation,
    checks: dict[str, Any],
    how: Scoring,
    has_converged: bool | None,
) -> dict[str, Any]:
    """Content of ``metrics.json``."""
    split = datamodule.split
    names = {name.rpartition("/")[2] for name in evaluation.table["metric"]}
    return {
        "model": name,
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
        "converged": has_converged,
    }
