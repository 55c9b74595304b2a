"""The end of every run: the model, its baselines and the ceiling, scored by one evaluator on one part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import pandas as pd
import torch

from torchcell.data.errors import InputError, some
from torchcell.datamodules.base import RecordDataModule
from torchcell.datamodules.batch import BatchOrder, PackedLoader
from torchcell.metrics.evaluate import Evaluation, evaluate
from torchcell.metrics.guards import converged, input_drop, loss_share_warnings
from torchcell.metrics.results import Results
from torchcell.models.base import Model
from torchcell.nn.expert_usage import ExpertUsage
from torchcell.report.page import Section, write_report
from torchcell.report.relations import relation_sections
from torchcell.report.table import print_table
from torchcell.run.baselines import baseline_predictions
from torchcell.run.embedding import report_latents
from torchcell.run.folder import write_json
from torchcell.run.node_embedding import scored_nodes
from torchcell.run.progress import stage, track

if TYPE_CHECKING:
    from torchcell.run.rivals import Rival


@dataclass(frozen=True, eq=False)
class Scored:
    """What a run found.

    Attributes:
        results: Predictions of every system on the part; the evaluation has further ones, e.g. of a ranking.
        evaluation: Table of metrics and the verdict.
        summary: Content of ``metrics.json``.
        files: What was written.
        sections: For the report, of what only the pass over the part can tell.
    """

    results: Results
    evaluation: Evaluation
    summary: dict[str, Any]
    files: list[Path]
    sections: list[Section] = field(default_factory=list)


def predict_part(
    trainer: lightning.Trainer, model: Model, datamodule: RecordDataModule, part: str, packed: Any = None
) -> np.ndarray:
    """Predictions for exactly the samples of ``part`` [n, T], in the split's order, from all processes."""
    trainer.test(model, dataloaders=datamodule.loader(part, packed=packed, whole=True), verbose=False)
    sample, prediction = model.take_tested()
    expected = torch.from_numpy(datamodule.split.index(part))
    if not torch.equal(sample, expected):
        lacking = set(expected.tolist()) - set(sample.tolist())
        names = datamodule.sample_id[sorted(lacking)]
        raise InputError(f"the pass over {part!r} missed {len(lacking)} of {len(expected)} samples: {some(names)}")
    return prediction.numpy()


def predict_asked(
    model: Model, datamodule: RecordDataModule, part: str, prediction: np.ndarray, device: torch.device | str
) -> dict[str, np.ndarray]:
    """What is kept of the model's answers to all that is asked of ``part``, by record; to the part itself it has given
    ``prediction`` [n, T].
    """
    kept = {}
    for what, make in track(datamodule.asked(part).items(), f"{type(model).__name__}, predict"):
        raw = predict_record(model, datamodule, make(), device) if what else prediction
        kept[what] = datamodule.condense(part, what, raw)
    return kept


def predict_record(model: Model, datamodule: RecordDataModule, record: Any, device: torch.device | str) -> np.ndarray:
    """What the model says of ``record``'s samples [n, T], as ``forward`` gives it: log-odds, not probabilities, which
    would tie the surest ones. One process computes it; the model is as before when this returns.
    """
    packed = datamodule.pack(record, datamodule.spec)
    loader = PackedLoader(packed, BatchOrder(torch.arange(len(record)), shuffle=False), datamodule.eval_batch_size)
    found = np.empty((len(record), len(datamodule.spec.outputs)), dtype=np.float32)
    trained, place = model.training, model.device
    model.eval().to(device)
    with torch.no_grad():
        start = 0
        for batch in loader:
            found[start : start + len(batch)] = model(batch.to(device)).float().cpu().numpy()
            start += len(batch)
    model.train(trained).to(place)
    return found


@stage("scoring")
def score(
    trainer: lightning.Trainer,
    model: Model,
    datamodule: RecordDataModule,
    baselines: Mapping[str, Any],
    part: str = "test",
    n_boot: int = 1000,
    seed: int = 0,
    history: pd.DataFrame | None = None,
    min_delta: float = 1e-3,
    umap: bool = False,
    rivals: Mapping[str, Rival] = MappingProxyType({}),
) -> Scored | None:
    """Predict with the model, the baselines and the ceiling, and evaluate them.

    Args:
        trainer: Runs the pass over the part, on however many processes.
        model: With the weights to be scored.
        datamodule: The data with its split.
        baselines: Configs by name, see ``conf/baselines``.
        part: Which part is scored.
        n_boot: Bootstrap resamples.
        seed: Of the resamples and the shuffles; the baselines have their own, in their config.
        history: One row an epoch, if the model was trained here.
        min_delta: What counts as an improvement of the validation score.
        umap: Whether the report's map of latents has a UMAP too; it takes about ten seconds.
        rivals: Other trained models by name, with what they predict of the same.

    Returns:
        The outcome, nothing written yet; None on all processes but the first.
    """
    prediction = predict_part(trainer, model, datamodule, part)
    generator = torch.Generator().manual_seed(seed)
    index = torch.from_numpy(datamodule.split.index(part))
    ablated = {
        name: None if packed is None else predict_part(trainer, model, datamodule, part, packed)
        for name, packed in datamodule.ablations(index, generator).items()
    }
    if not trainer.is_global_zero:
        return None
    device = trainer.strategy.root_device
    name, ceiling = type(model).__name__, datamodule.ceiling(datamodule.record(part))
    kept = predict_asked(model, datamodule, part, prediction, device)
    predictions = {what: {name: own} for what, own in kept.items()}
    for rival, found in rivals.items():
        for what, theirs in found.predictions.items():
            predictions[what][rival] = theirs
    for what, by_baseline in baseline_predictions(datamodule, baselines, part).items():
        predictions[what] |= by_baseline
    if ceiling is not None:
        predictions[""]["replicate_ceiling"] = ceiling
    active = model.active_outputs()
    mask = None if active is None else active.cpu().numpy()
    scored = datamodule.results(part, predictions, name, None if ceiling is None else "replicate_ceiling")
    every = [replace(one, active=mask, rivals=tuple(rivals)) for one in scored]
    results = every[0]
    flat = None if history is None else converged(history["val/score"].tolist(), min_delta)
    evaluation = evaluate(every, n_boot=n_boot, seed=seed, converged=flat)
    evaluation = replace(evaluation, rivals=tuple(rivals[one.rival].noted(one) for one in evaluation.rivals))
    nodes = scored_nodes(model, evaluation.table)
    inside = [part.collapse() for part in model.modules() if isinstance(part, ExpertUsage)]
    for what in (*filter(None, inside), *([nodes.finding] if nodes is not None and nodes.collapsed else [])):
        evaluation = replace(evaluation, verdict=evaluation.verdict.with_collapse(what))
    guards: dict[str, Any] = {"spread": evaluation.spread}
    if nodes is not None:
        guards["embeddings"] = nodes.guard()
    guards |= {name: input_drop(results, predicted) for name, predicted in ablated.items()}
    if history is not None:
        guards["loss_share_warnings"] = loss_share_warnings(history)
    summary = {
        "model": name,
        "part": part,
        "outputs": list(results.outputs[:16]),
        "verdict": evaluation.verdict.text,
        "collapsed": evaluation.verdict.collapsed,
        "guards": guards,
        "split_hash": datamodule.split.hash,
        "split": {
            "name": datamodule.split.name,
            "dealt": datamodule.split.dealt or datamodule.split.hash,
            "method": datamodule.split.method,
            "seed": datamodule.split.seed,
            **datamodule.split.counts(),
        },
        "converged": flat,
    }
    if rivals:
        summary["rivals"] = {one.rival: rivals[one.rival].facts | one.summary() for one in evaluation.rivals}
    # One process is enough, and the others have left.
    sections = report_latents(model, datamodule, results, device, umap, seed)
    table = evaluation.table[~evaluation.table["system"].isin(results.rivals)]
    sections += relation_sections(table, name, model.spec.extras.get("supervised", ()))
    sections += [] if nodes is None else nodes.sections(seed)
    return Scored(results, evaluation, summary, [], sections)


@stage("writing the report")
def write(
    scored: Scored,
    folder: Path,
    info: Mapping[str, Any],
    history: pd.DataFrame | None,
    model: Model,
    extra: Mapping[str, Any],
) -> Scored:
    """Write metrics, comparisons with each baseline, predictions and the report into ``folder``, and print the table.

    Args:
        scored: The outcome.
        folder: The run's folder.
        info: What the report's head tells of the run.
        history: One row an epoch.
        model: Asked for its own sections.
        extra: Further keys of ``metrics.json``, e.g. epochs and seconds.
    """
    from torchcell.data.cache import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    summary = scored.summary | dict(extra)
    paths = {name: folder / name for name in ("metrics.csv", "comparisons.csv", "metrics.json")}
    for name, table in (("metrics", scored.evaluation.table), ("comparisons", scored.evaluation.verdict.to_frame())):
        with atomic_write(paths[f"{name}.csv"]) as temporary:
            table.to_csv(temporary, index=False)
    write_json(paths["metrics.json"], summary)
    predictions = _write_predictions(scored.evaluation.results, folder)
    pages = write_report(
        folder,
        evaluation=scored.evaluation,
        results=scored.results,
        history=history,
        info=dict(info),
        guards=summary["guards"],
        sections=[*scored.sections, *model.report_sections(history)],
    )
    print_table(scored.evaluation, scored.results)
    files = [*paths.values(), *predictions, *pages]
    return Scored(scored.results, scored.evaluation, summary, files, scored.sections)


def _write_predictions(every: Sequence[Results], folder: Path) -> list[Path]:
    """One long table; predictions per gene as h5ad with a layer a system; ranks in a table of their own."""
    from torchcell.data.cache import atomic_write

    paths = []
    for results in every:
        if results.per_gene:
            name = f"predictions_{results.level}.h5ad" if results.level else "predictions.h5ad"
            paths.append(_write_expression(results, folder / name))
            continue
        path = folder / ("ranks.parquet" if results.task == "ranking" else "predictions.parquet")
        with atomic_write(path) as temporary:
            results.to_frame().to_parquet(temporary, index=False)
        paths.append(path)
    return paths


def _write_expression(results: Results, path: Path) -> Path:
    import anndata

    from torchcell.data.cache import atomic_write

    obs = pd.DataFrame({"sample_id": results.sample_id.astype(str)}, index=results.sample_id.astype(str))
    table = anndata.AnnData(X=results.measured, obs=obs, var=pd.DataFrame(index=list(results.outputs)))
    for name, values in results.systems.items():
        table.layers[name] = np.asarray(values, dtype=np.float32)
    with atomic_write(path) as temporary:
        table.write_h5ad(temporary)
    return path


def say(scored: Scored, started: float) -> None:
    """Print the paths that were written and the time it took."""
    from rich.console import Console

    console = Console(markup=False)
    for path in scored.files:
        if path.suffix in (".html", ".csv", ".json", ".parquet", ".h5ad"):
            console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
