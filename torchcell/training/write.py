"""Writes the results of a run: metrics and predictions first, then the report."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from torchcell.evaluation.comparison import to_frame
from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.results import Results
from torchcell.io.cache import write_json
from torchcell.io.errors import InputError
from torchcell.io.fingerprint import fingerprint
from torchcell.io.progress import stage
from torchcell.io.run_files import read_json, read_scores
from torchcell.report.page import write_report
from torchcell.report.table import print_table
from torchcell.training.score import Scored


@dataclass(frozen=True)
class Seeds:
    """The primary metric of the same model under several seeds, including that of this run.

    Attributes:
        metric: Its name.
        values: By seed.
    """

    metric: str
    values: dict[int, float]

    @property
    def text(self) -> str:
        """A line on the spread over seeds: a smaller difference means nothing."""
        values = np.array(list(self.values.values()))
        return (
            f"{len(values)} seeds of this config: {self.metric} {values.mean():.3f} ± {values.std(ddof=1):.3f} "
            f"({values.min():.3f} to {values.max():.3f})"
        )

    def summary(self) -> dict[str, Any]:
        """The entry in ``metrics.json``."""
        values = np.array(list(self.values.values()))
        by_seed = {str(seed): value for seed, value in self.values.items()}
        return {"metric": self.metric, "mean": values.mean(), "sd": values.std(ddof=1), "values": by_seed}


def facts_of(history: pd.DataFrame, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What training took, and whether its data were other ones than the run began with.

    Args:
        history: One row for each epoch.
        environment: Content of ``environment.json``.
    """
    facts: dict[str, Any] = {
        "epochs": len(history),
        "seconds": round(float(history["epoch_s"].sum()), 1),
        "peak_mb": float(history["memory_mb"].max()),
        "samples_per_s": float(history["samples_per_s"].median()),
    }
    return facts | ({"data_changed": True} if environment.get("data_changed") else {})


def other_seeds(folder: Path, evaluation: Evaluation, results: Results, summary: Mapping[str, Any]) -> Seeds | None:
    """Scores of finished runs of the same config and split with other seeds, and of this run; None without others.

    Args:
        folder: Folder of the run, ``<config hash>-s<seed>``.
        evaluation: Evaluation of the run.
        results: Results of the run.
        summary: Content of ``metrics.json``.
    """
    named = re.fullmatch(r"(.+)-s(\d+)", folder.name)
    if named is None:
        return None
    values = {int(named[2]): _score(evaluation.table, results.model, evaluation.primary)}
    for other in folder.parent.glob(f"{named[1]}-s*"):
        seed = re.fullmatch(r".+-s(\d+)", other.name)
        files = (other / "metrics.csv", other / "metrics.json")
        if seed is None or other == folder or not all(file.is_file() for file in files):
            continue
        with contextlib.suppress(InputError):  # a damaged file of another run costs this one nothing
            theirs = read_json(files[1])
            if all(theirs.get(key) == summary[key] for key in ("split_hash", "part", "model")):
                values[int(seed[1])] = _score(read_scores(files[0]), results.model, evaluation.primary)
    defined = {seed: value for seed, value in sorted(values.items()) if np.isfinite(value)}
    return Seeds(evaluation.primary, defined) if len(defined) > 1 else None


def _score(table: pd.DataFrame, model: str, metric: str) -> float:
    values = table.loc[(table["system"] == model) & (table["metric"] == metric), "value"]
    return float(values.iloc[0]) if len(values) else float("nan")


def content_hashes(results: Results) -> dict[str, str]:
    """What the verdict rests on, as hashes of values: measured values by sample, and each system's predictions.

    Whoever gets a run can compare these with those of a rerun: a cache that was rewritten shows.
    """
    rows = [results.sample_id, list(results.outputs)]
    return {
        "measured": fingerprint([*rows, np.asarray(results.measured)]),
        **{f"system {name}": fingerprint([*rows, np.asarray(one)]) for name, one in results.systems.items()},
    }


@stage("writing the report")
def write(
    scored: Scored,
    folder: Path,
    info: Mapping[str, Any],
    history: pd.DataFrame | None,
    extra: Mapping[str, Any],
) -> Scored:
    """Write metrics, comparisons and predictions into ``folder``, then the report, and print the table.

    The results are on disk before any section of the report is made; a section that fails becomes a line of the report.

    Args:
        scored: The outcome.
        folder: The run folder.
        info: Facts of the run for the report.
        history: One row for each epoch.
        extra: Further keys of ``metrics.json``, e.g. epochs and seconds.
    """
    from torchcell.io.cache import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    evaluation = scored.evaluation
    seeds = other_seeds(folder, evaluation, scored.results, scored.summary)
    summary = scored.summary | dict(extra) | ({"seeds": seeds.summary()} if seeds is not None else {})
    summary["content"] = content_hashes(scored.results)
    paths = {name: folder / name for name in ("metrics.csv", "comparisons.csv", "metrics.json")}
    predictions = _write_predictions(evaluation.results, folder)
    fitted = scored.baselines.write(folder)
    for name, table in (("metrics", evaluation.table), ("comparisons", to_frame(evaluation.verdict.every))):
        with atomic_write(paths[f"{name}.csv"]) as temporary:
            table.to_csv(temporary, index=False)
    write_json(paths["metrics.json"], summary)
    info = dict(info) if seeds is None else {**info, "notes": [*info.get("notes", ()), seeds.text]}
    pages = write_report(
        folder,
        evaluation=evaluation,
        results=scored.results,
        history=history,
        info=info,
        checks=summary["checks"],
        sections=scored.sections,
    )
    print_table(evaluation, scored.results, beside=[] if seeds is None else [seeds.text])
    if fitted:
        _say_fitted(fitted)
    files = [*paths.values(), *predictions, *pages]
    return replace(scored, summary=summary, files=files)


def _say_fitted(files: Sequence[Path]) -> None:
    """Print that predict can use the baselines, and their size."""
    from torchcell.io.console import Console

    size = sum(file.stat().st_size for file in files) / 2**20
    text = f"wrote {len(files)} fitted baselines ({size:,.1f} MB) to {files[0].parent}: predict system=NAME"
    Console(markup=False).print(text, soft_wrap=True, highlight=False)


def _write_predictions(all_results: Sequence[Results], folder: Path) -> list[Path]:
    """One long table; predictions of genes as h5ad with a layer for each system; ranks in a separate table."""
    from torchcell.io.cache import atomic_write

    paths = []
    for results in all_results:
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

    from torchcell.io.cache import atomic_write

    obs = pd.DataFrame({"sample_id": results.sample_id.astype(str)}, index=results.sample_id.astype(str))
    table = anndata.AnnData(X=results.measured, obs=obs, var=pd.DataFrame(index=list(results.outputs)))
    for name, values in results.systems.items():
        table.layers[name] = np.asarray(values, dtype=np.float32)
    with atomic_write(path) as temporary:
        table.write_h5ad(temporary)
    return path


def say(scored: Scored, started: float) -> None:
    """Print the written paths and the time."""
    from torchcell.io.console import Console

    console = Console(markup=False)
    for path in scored.files:
        if path.suffix in (".html", ".csv", ".json", ".parquet", ".h5ad"):
            console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
