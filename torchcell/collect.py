"""``python -m torchcell.collect RUNS -o table.csv``: many run folders become one table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.data.errors import InputError, some

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("experiment", "config", "split_method", "cell_line", "part", "system", "metric")
"""What rows must share to be averaged: the means run over seeds and folds, and then over cell lines."""

LINES = "mean_over_lines"
"""Level of the rows that average the means of single lines, so that each line counts once whatever its folds."""

WHOLE = ("seed", "fold", "n_units", "n_undefined", "epochs", "n_runs", "n_splits", "n_lines")
"""Columns of whole numbers, which a missing value would turn into fractions."""


def collect(folders: list[Path]) -> pd.DataFrame:
    """One row per run, system and metric, then the means over seeds and folds, then those over cell lines.

    ``rank`` (1 is best) compares the systems of one run, on one metric; ``split_rank`` compares all
    runs that share a split hash. Runs of different splits are never ranked together.

    Args:
        folders: Run folders, or folders that hold run folders at any depth.

    Raises:
        InputError: No finished run below the folders.
    """
    import pandas as pd

    found = sorted({path.parent for folder in folders for path in folder.rglob("metrics.csv")})
    if not found:
        unfinished = [path.parent for folder in folders for path in folder.rglob("config.yaml")]
        hint = f"; {len(unfinished)} run(s) have not finished: {some(unfinished)}" if unfinished else ""
        raise InputError(f"no metrics.csv below {some(folders)}{hint}")
    runs = pd.concat([_run(path) for path in found], ignore_index=True)
    direction = runs["metric"].map(_higher_is_better)
    signed = runs["value"].where(direction, -runs["value"])
    ranked = runs["system"] != "replicate_ceiling"
    runs["rank"] = (
        signed[ranked].groupby([runs["run"], runs["part"], runs["metric"]]).rank(ascending=False, method="min")
    )
    by_split = [runs["split_hash"], runs["part"], runs["metric"]]
    runs["split_rank"] = signed[ranked].groupby(by_split).rank(ascending=False, method="min")
    means = _means(runs)
    table = pd.concat([runs, means, _means_over_lines(means)], ignore_index=True)
    return table.astype({name: "Int64" for name in WHOLE if name in table})


def _run(folder: Path) -> pd.DataFrame:
    """The metrics of one run beside what it was."""
    import pandas as pd
    from omegaconf import OmegaConf

    table = pd.read_csv(folder / "metrics.csv")
    config, summary = OmegaConf.load(folder / "config.yaml"), json.loads((folder / "metrics.json").read_text())
    about = {
        "run": str(folder),
        "level": "run",
        "experiment": config.name,
        "seed": config.seed,
        "config": _config_but_fold(config),
        "split_method": config.split.method,
        "fold": config.split.fold,
        "split_hash": summary["split_hash"],
        "cell_line": _lines_of(config),
    }
    after = {name: summary.get(name) for name in ("converged", "collapsed", "epochs", "seconds", "verdict")}
    return table.assign(**about, **after)[[*about, *table.columns, *after]]


def _lines_of(config: Any) -> str | None:
    """The cell line of a run, several joined by ``|``, or none where it takes all."""
    from omegaconf import OmegaConf

    lines = OmegaConf.select(config, "data.cell_line")
    return lines if lines is None or isinstance(lines, str) else "|".join(lines)


def _config_but_fold(config: Any) -> str:
    """Eight digits that runs share when they differ in nothing but seed, fold and cell line."""
    from omegaconf import DictConfig, OmegaConf

    from torchcell.run.folder import config_hash

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


def _higher_is_better(name: str) -> bool:
    from torchcell.metrics.registry import REGISTRY

    return {one.name: one.higher_is_better for one in REGISTRY}[name.rpartition("/")[2]]


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, write the table, print the means."""
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.collect",
        description="Turn many run folders into one table: a row per run, system and metric, then the means "
        "over seeds and folds, then those over cell lines. Runs of different splits are never ranked together.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold them at any depth")
    parser.add_argument("-o", "--out", type=Path, required=True, help="table to write: .csv, .parquet or .md")
    asked = parser.parse_args(arguments)
    try:
        if asked.out.suffix not in (".csv", ".parquet", ".md"):
            raise InputError(f"-o {asked.out}: the name must end in .csv, .parquet or .md")
        missing = [folder for folder in asked.runs if not folder.is_dir()]
        if missing:
            raise InputError(f"no such folder: {some(missing)}")
        table = collect(asked.runs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _write(table, asked.out)
    _show(table)
    print(f"wrote {len(table):,} rows to {asked.out}")
    return 0


def _write(table: pd.DataFrame, out: Path) -> None:
    from torchcell.data.cache import atomic_write

    with atomic_write(out) as temporary:
        if out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        elif out.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            temporary.write_text(_markdown(table), encoding="utf-8")


@dataclass(frozen=True)
class _Block:
    """One table for people: a system a row, a metric a column, what the means are over, and the runs behind it."""

    title: str
    over: str
    metrics: list[str]
    rows: list[list[str]]
    runs: pd.DataFrame


def _blocks(table: pd.DataFrame) -> Iterator[_Block]:
    """A block for each experiment, config, split, line and part; before those of lines, the mean over them."""
    table = table.assign(cell_line=table["cell_line"].fillna(""))
    keys = [key for key in KEYS if key not in ("system", "metric")]
    single = table[table["level"] == "run"].groupby(keys, sort=False)
    groups = list(table[table["level"] != "run"].groupby([*keys, "level"], sort=False))
    # The hard split is the headline, and what is true of all lines stands before what is true of one.
    place = {config: i for i, config in enumerate(dict.fromkeys(table["config"]))}
    groups.sort(key=lambda found: (found[0][0], found[0][2] == "random", place[found[0][1]], found[0][-1] != LINES))
    for (*key, level), group in groups:
        metrics = list(dict.fromkeys(group["metric"]))
        rows = []
        for system, of_system in group.groupby("system", sort=False):
            cells = of_system.set_index("metric")
            rows.append([str(system), *(_cell(cells.loc[metric]) for metric in metrics)])
        experiment, config, split, line, part = key
        over = f"{int(group['n_lines'].max())} lines" if level == LINES else "runs"
        of = f"mean over {over}" if level == LINES else line
        title = ", ".join(str(text) for text in (f"{experiment} {config}", split, of, part) if text)
        runs = table.iloc[:0] if level == LINES else single.get_group(tuple(key))
        yield _Block(f"{title}: {int(group['n_runs'].max())} run(s)", over, metrics, rows, runs)


def _show(table: pd.DataFrame) -> None:
    """The blocks on the screen."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for block in _blocks(table):
        title = escape(f"{block.title}, mean ± sd over {block.over} [mean 95 % interval]")
        screen = Table(title=title, title_justify="left")
        screen.add_column("system")
        for metric in block.metrics:
            screen.add_column(metric, justify="right")
        for row in block.rows:
            screen.add_row(*map(escape, row))
        (Console() if sys.stdout.isatty() else Console(width=200)).print(screen)


def _markdown(table: pd.DataFrame) -> str:
    """The blocks as Markdown, each followed by what its runs say of themselves."""
    lines: list[str] = []
    for block in _blocks(table):
        lines += [f"### {block.title}", "", f"Mean ± sd over {block.over} [mean of the 95 % intervals].", ""]
        lines += ["| system | " + " | ".join(block.metrics) + " |", "|---" * (len(block.metrics) + 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in block.rows]
        lines.append("")
        for run, of_run in block.runs.groupby("run", sort=False):
            one = of_run.iloc[0]
            lines.append(
                f"- seed {one['seed']}, fold {one['fold']}: {one['epochs']} epochs in {one['seconds']:,.0f} s; "
                f"{one['verdict']} (`{Path(str(run)).name}`, split `{one['split_hash'][:8]}`)"
            )
        lines.append("")
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    if row["value"] != row["value"]:
        return "undefined"
    spread = "" if row["sd"] != row["sd"] else f" ± {row['sd']:.3f}"
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{spread}{interval}"


if __name__ == "__main__":
    sys.exit(main())
