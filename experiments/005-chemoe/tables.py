"""Markdown tables of this study from its run folders: python experiments/005-chemoe/tables.py RUNS/level3."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from torchcell.collect import collect
from torchcell.report.table import DIFFERENCES

METRICS = (
    *("pearson_delta_plate", "pearson_delta", "mse", "pearson2_de@20", "r2_top@20"),
    *("pearson2_de@20_published", "r2_top@20_published"),
    *("plate_known/pearson_delta_plate", "plate_known/pearson_delta", "plate_known/mse"),
)


def main(folder: Path) -> None:
    """For each experiment systems by metrics, then the model against its best baseline over all runs."""
    table = collect([folder])
    for (experiment, line), found in table.groupby(["experiment", "cell_line"], sort=False, dropna=False):
        runs = found[found["level"] == "run"].sort_values(["fold", "seed"])
        model, folds, n_runs = runs["system"].iloc[0], runs["fold"].nunique(), runs["run"].nunique()
        shown = [metric for metric in METRICS if metric in set(runs["metric"])]
        print(f"\n### {experiment}, {line}: {n_runs} run(s), {folds} fold(s)\n")
        print("| system | " + " | ".join(shown) + " |\n|---|" + "---|" * len(shown))
        for system in dict.fromkeys(runs["system"]):
            cells = (_cell(runs, system, metric, system == model) for metric in shown)
            print(f"| {system} | " + " | ".join(cells) + " |")
        over = found[found["level"] == DIFFERENCES]
        if len(over):
            print(f"\nAll runs together: {over['verdict'].iloc[0]}.\n")
            print("| metric | best baseline | difference |\n|---|---|---|")
            for row in over.itertuples():
                print(f"| {row.metric} | {row.system} | {row.value:.4f} [{row.low:.4f}, {row.high:.4f}] |")


def _cell(runs: pd.DataFrame, system: str, metric: str, each: bool) -> str:
    """Mean over the runs, and of the model each run; of a single run its interval."""
    rows = runs[(runs["system"] == system) & (runs["metric"] == metric)]
    values = rows["value"].dropna()
    if values.empty:
        return ""
    text = f"{values.mean():.3f}"
    if not each:
        return text
    one = rows.iloc[0]
    return text + (
        f" ({', '.join(f'{value:.3f}' for value in values)})"
        if len(values) > 1
        else f" [{one.low:.3f}, {one.high:.3f}]"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
