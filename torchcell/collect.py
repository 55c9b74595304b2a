"""``python -m torchcell.collect RUNS -o table.csv``: many run folders become one table, or one page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

import torchcell.cells.metrics
import torchcell.drug_response.metrics
import torchcell.knowledge_graph.metrics  # noqa: F401  each task makes its metrics known
from torchcell.core.split import Split
from torchcell.evaluation.pooled import pooled_verdict
from torchcell.evaluation.registry import higher_is_better, is_known, learned_directions
from torchcell.evaluation.results import NETWORK_ALONE, Design, clusters_in
from torchcell.io.command import in_one_line
from torchcell.io.errors import InputError, readable, some
from torchcell.io.paths import refuse_links, refuse_unwritable
from torchcell.io.run_files import read_json, read_rows, read_scores
from torchcell.report.table import DIFFERENCES, KEYS, LINES, markdown, show
from torchcell.training.choices import model_folders
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import config_hash, saved_config

LOWER = "lower_is_better"
"""Column, while runs are read, of what a run says of its metric."""
WHOLE = ("seed", "fold", "n_units", "n_undefined", "epochs", "n_runs", "n_splits", "n_lines")
"""Columns of whole numbers, which a missing value would turn into fractions."""


def collect(folders: list[Path]) -> pd.DataFrame:
    """One row per run, system and metric, then the means over seeds and folds, then those over cell lines.

    Last, over the seeds and folds of a config, the model against its best baseline (``metrics.pooled``), a row per
    metric with the verdict.

    ``rank`` (1 is best) compares the systems of one run, on one metric; ``split_rank`` compares all
    runs that share a split hash. Runs of different splits are never ranked together.

    Args:
        folders: Run folders, or folders that hold run folders at any depth.

    Raises:
        InputError: No finished run below the folders.
    """
    scored = {path.parent for folder in folders for path in folder.rglob("metrics.csv")}
    found = sorted(path for path in scored if (path / "config.yaml").is_file())  # no scores beside a checkpoint
    if not found:
        unfinished = [path.parent for folder in folders for path in folder.rglob("config.yaml")]
        hint = f"; {len(unfinished)} run(s) have not finished: {some(unfinished)}" if unfinished else ""
        raise InputError(f"no metrics.csv below {some(folders)}{hint}")
    runs = pd.concat([_as_written(path) for path in found], ignore_index=True)
    with learned_directions(_directions(runs)):
        return _table(runs.drop(columns=LOWER))


def _directions(runs: pd.DataFrame) -> set[str]:
    """Metrics that are known to their runs alone, and of which lower is better by all of them.

    Raises:
        InputError: Runs that do not agree on it: one that was sent would turn the ranks of the others.
    """
    unknown = runs[~runs["metric"].map(is_known)]
    by_metric = unknown.groupby(unknown["metric"].map(_short))[LOWER]
    if odd := [str(name) for name, found in by_metric if found.any() != found.all()]:
        opposed = sorted(set(unknown.loc[unknown[LOWER], "run"]))
        raise InputError(
            f"the runs do not agree whether lower is better of {some(odd)}, a metric that is not registered here; "
            f"it is by {some(opposed)}: collect these apart"
        )
    return {str(name) for name, found in by_metric if found.all()}


def _short(metric: str) -> str:
    """The metric alone, of ``<output>/<metric>``."""
    return str(metric).rpartition("/")[2]


def _table(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their ranks, then the rows over several of them."""
    direction = runs["metric"].map(higher_is_better)
    signed = runs["value"].where(direction, -runs["value"])
    ranked = runs["system"] != "replicate_ceiling"
    runs["rank"] = (
        signed[ranked].groupby([runs["run"], runs["part"], runs["metric"]]).rank(ascending=False, method="min")
    )
    by_split = [runs["split_hash"], runs["part"], runs["metric"]]
    runs["split_rank"] = signed[ranked].groupby(by_split).rank(ascending=False, method="min")
    means = _means(runs)
    table = pd.concat([runs, means, _means_over_lines(means), _differences(runs)], ignore_index=True)
    return table.astype({name: "Int64" for name in WHOLE if name in table})


def _as_written(folder: Path) -> pd.DataFrame:
    """See ``_run``; a file whose values are of another shape than a run's is an error that names the run."""
    try:
        return _run(folder)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{folder} is not as torchcell writes it ({why}); leave it out") from error


def _run(folder: Path) -> pd.DataFrame:
    """The metrics of one run beside what it was."""
    refuse_links(folder)
    table, config = read_scores(folder / "metrics.csv"), saved_config(folder)
    summary = read_json(folder / "metrics.json", "split_hash")
    missing = [key for key in ("name", "seed", "split.method", "split.fold") if OmegaConf.select(config, key) is None]
    if missing:
        raise InputError(f"{folder / 'config.yaml'} has no {some(missing)}; torchcell did not write it so")
    elsewhere = set(summary.get("comparators", {})) - {NETWORK_ALONE}  # they have runs of their own
    lower = {str(name) for name in summary.get("lower_is_better") or ()}
    table = table[~table["system"].isin(elsewhere)].assign(**{LOWER: lambda one: one["metric"].map(_short).isin(lower)})
    about = {
        "run": str(folder),
        "level": "run",
        "experiment": config.name,
        "seed": config.seed,
        "config": _config_but_fold(config),
        "split_method": summary.get("split", {}).get("method", config.split.method),  # what a choice came to be
        "fold": config.split.fold,
        "split_hash": str(summary["split_hash"]),
        "cell_line": _lines_of(config),
    }
    after = {name: _of_kind(summary.get(name), bool) for name in ("converged", "collapsed")}
    after |= {name: _of_kind(summary.get(name), int, float) for name in ("epochs", "seconds")}
    verdict = summary.get("verdict")
    if isinstance(verdict, dict):
        after |= {"verdict": verdict.get("text"), "class": verdict.get("class")}
    else:
        after |= _old(verdict)
    return table.assign(**about, **after)[[*about, *table.columns, *after]]


def _of_kind(value: Any, *kinds: type) -> Any:
    """A value of ``metrics.json``, or none where it is not of the kind that a run writes, or endless."""
    return value if type(value) in kinds and np.isfinite(value) else None


def _old(verdict: Any) -> dict[str, Any]:
    """The line of a run that was judged by the rule before 2026-11-29, marked as that."""
    return {"verdict": None if verdict is None else f"{verdict} [by the rule before 2026-11-29]", "class": None}


def _lines_of(config: Any) -> str | None:
    """The cell line of a run, several joined by ``|``, or none where it takes all."""
    lines = OmegaConf.select(config, "data.cell_line")
    return lines if lines is None or isinstance(lines, str) else "|".join(map(str, lines))


def _config_but_fold(config: Any) -> str:
    """Eight digits that runs share when they differ in nothing but seed, fold and cell line."""
    free = {"split": {"fold": None, "seed": None}, "data": {"cell_line": None}}
    merged = OmegaConf.merge(config, free)
    assert isinstance(merged, DictConfig)
    return config_hash(merged)[:8]


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, and the standard deviation over runs, of each system on each metric."""
    groups = runs.groupby(list(KEYS), sort=False, dropna=False)
    means = groups.agg(
        value=("value", "mean"),
        sd=("value", "std"),
        low=("low", "mean"),
        high=("high", "mean"),
        n_runs=("run", "nunique"),
        n_splits=("split_hash", "nunique"),
        seconds=("seconds", "mean"),
        converged=("converged", "all"),
    ).reset_index()
    means["run"] = "mean of " + means["n_runs"].astype(str)
    return means.assign(level="mean")


def _means_over_lines(means: pd.DataFrame) -> pd.DataFrame:
    """Mean, and the standard deviation over lines, of the means of single lines, where there are several."""
    single = means[means["cell_line"].notna() & ~means["cell_line"].astype(str).str.contains("|", regex=False)]
    groups = single.groupby([key for key in KEYS if key != "cell_line"], sort=False, dropna=False)
    found = groups.agg(
        value=("value", "mean"),
        sd=("value", "std"),
        low=("low", "mean"),
        high=("high", "mean"),
        n_runs=("n_runs", "sum"),
        n_splits=("n_splits", "sum"),
        n_lines=("cell_line", "nunique"),
        seconds=("seconds", "mean"),
        converged=("converged", "all"),
    ).reset_index()
    found = found[found["n_lines"] > 1]
    return found.assign(run="mean of " + found["n_lines"].astype(str) + " lines", level=LINES)


def _differences(runs: pd.DataFrame) -> pd.DataFrame:
    """The model against its best baseline over all runs of a config, a row per metric, with one verdict."""
    rows: list[dict[str, Any]] = []
    keys = [key for key in KEYS if key not in ("system", "metric")]
    for names, group in runs.groupby(keys, sort=False, dropna=False):
        each = group.drop_duplicates("run").set_index("run")
        summaries = {str(run): read_json(Path(str(run)) / "metrics.json") for run in each.index}
        if len(each) < 2 or not _can_be_pooled(summaries):
            continue
        tables = {run: read_rows(Path(run) / "comparisons.csv") for run in summaries}
        found = pd.concat([table.assign(run=run, split=each["split_hash"][run]) for run, table in tables.items()])
        part = str(group["part"].iloc[0])
        clusters = {run: _tested(Path(run), part) for run in tables}
        _, *others = group["system"].unique().tolist()
        baselines = [name for name in others if name not in ("replicate_ceiling", NETWORK_ALONE)]
        verdict = pooled_verdict(
            found, clusters, list(summaries.values()), _design(Path(next(iter(tables)))), baselines
        )
        about = dict(zip(keys, names, strict=True)) | {
            "run": f"over {len(each)}",
            "level": DIFFERENCES,
            "n_runs": len(each),
            "n_splits": each["split_hash"].nunique(),
            "n_units": verdict.primary.n_clusters,
            "verdict": verdict.text,
            "class": verdict.kind,
        }
        for one in (verdict.primary, *verdict.calibration, *verdict.beside):
            numbers = {"value": one.difference, "low": one.low, "high": one.high}
            rows.append(about | {"metric": one.metric, "system": one.baseline, "role": one.role} | numbers)
    return pd.DataFrame(rows)


def _can_be_pooled(summaries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all runs have comparisons and a verdict on one primary metric, as today's runs have."""
    verdicts = [one.get("verdict") for one in summaries.values()]
    if not all(isinstance(one, dict) for one in verdicts):
        return False
    has_table = all((Path(run) / "comparisons.csv").is_file() for run in summaries)
    return has_table and len({one["metric"] for one in verdicts if isinstance(one, dict)}) == 1


def _design(run: Path) -> Design:
    """How a run's split was made."""
    split = Split.load(run / "split.parquet")
    n_folds = OmegaConf.select(saved_config(run), "split.n_folds")
    n_clusters = clusters_in(split.group[split.part != "unused"])
    method = read_json(run / "metrics.json", "split")["split"]["method"]
    return Design(split.key, n_clusters, method, n_folds)


def _tested(run: Path, part: str) -> set[str]:
    """The split's clusters in a part of a run."""
    split = Split.load(run / "split.parquet")
    return set(np.unique(split.group[split.part == part]).tolist()) - {""}


@in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, write the table, print the means."""
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.collect",
        description="Turn many run folders into one table: a row per run, system and metric, then the means "
        "over seeds and folds, then those over cell lines, and whether the model beat its best baseline over all seeds "
        "and folds together. Runs of different splits are never ranked together.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, folders of them, or RUNS/BENCHMARK")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="what to write: .csv, .parquet, .md, or .html: a page of all runs"
    )
    given = parser.parse_args(arguments)
    if given.out.suffix not in (".csv", ".parquet", ".md", ".html"):
        raise InputError(f"-o {given.out}: the name must end in .csv, .parquet, .md or .html")
    refuse_unwritable(given.out, "-o")
    folders = {folder: _folders(folder) for folder in given.runs}
    missing = [folder for folder, found in folders.items() if not found]
    if missing:
        raise InputError(f"no such folder: {some(missing)}")
    table = collect([folder for found in folders.values() for folder in found])
    _write(table, given.out)
    show(table)
    print(readable(f"wrote {len(table):,} rows to {given.out}"))
    return 0


def _folders(given: Path) -> list[Path]:
    """The folder, and where it has the name of a benchmark those of its models, e.g. ``runs/hetionet_stack`` of
    ``runs/hetionet``, which itself holds predictions that were judged.
    """
    found = [given] if given.is_dir() else []
    if not (conf_dir() / "benchmark" / f"{given.name}.yaml").is_file():
        return found
    models = {path.stem for folder in model_folders(conf_dir()) for path in folder.glob("*.yaml")}
    named = [given.parent / f"{given.name}_{model}" for model in sorted(models)]
    return [*found, *(folder for folder in named if folder.is_dir())]


def _write(table: pd.DataFrame, out: Path) -> None:
    from torchcell.io.cache import atomic_write
    from torchcell.report.collected import runs_page

    with atomic_write(out) as temporary:
        if out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        elif out.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            text = runs_page(table, out) if out.suffix == ".html" else markdown(table)
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
