"""Markdown tables of this study from its run folders: python experiments/005-chemoe/tables.py RUNS/level3."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

METRICS = ("pearson_delta_plate", "pearson_de", "mse", "pearson2_de@20", "r2_top@20", "pearson2_de@20_published")


def main(folder: Path) -> None:
    """One table an experiment: systems by metrics, means over the seeds; intervals of the first seed for the model."""
    for experiment in sorted({path.parents[1] for path in folder.glob("*/*/metrics.csv")}):
        runs = [pd.read_csv(path) for path in sorted(experiment.glob("*/metrics.csv"))]
        every = pd.concat(runs, keys=range(len(runs)), names=["seed"]).reset_index("seed")
        mean = every.pivot_table("value", "system", "metric", sort=False, dropna=False)
        first = runs[0].set_index(["system", "metric"])
        print(f"\n### {experiment.name}, {len(runs)} seed(s)\n")
        shown = [metric for metric in METRICS if metric in mean]
        print("| system | " + " | ".join(shown) + " |")
        print("|---|" + "---|" * len(shown))
        for number, system in enumerate(dict.fromkeys(every.system)):
            cells = []
            for metric in shown:
                value = mean[metric].get(system, float("nan"))
                text = "" if pd.isna(value) else f"{value:.3f}"
                if number == 0 and text:
                    row = first.loc[(system, metric)]
                    text += f" [{row.low:.3f}, {row.high:.3f}]"
                cells.append(text)
            print(f"| {system} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
