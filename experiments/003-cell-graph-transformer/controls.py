"""Compare the graph regularization loss with its controls, and seeds with their ensemble, on the same held-out units.

    python experiments/003-cell-graph-transformer/controls.py RUNS -o FOLDER [--reference "lambda 1"]

Runs of one split and one experiment name are read together; they must differ in seed, lambda, networks and hard mask
alone. For each setting it writes the mean over seeds of the test metric, and what the reference has more, paired by
seed, both with a 95 % bootstrap interval over the split's units: seeds are averaged within each resample, so the
interval is that of the data and not of the seeds; lowest and highest say how the seeds differ. `ensemble` is the
metric of the mean prediction of the seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from torchcell.evaluation.bootstrap import Interval, interval, resample
from torchcell.evaluation.registry import metric
from torchcell.io.errors import InputError
from torchcell.report.plots import BLUE, GREY, ORANGE, canvas


def main() -> None:
    """Read the runs, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder below which the runs are")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for controls.csv and controls.png")
    parser.add_argument("--names", nargs="*", help="experiments to read; all by default")
    parser.add_argument("--reference", default="lambda 1", help="setting that the others are compared with")
    parser.add_argument("--metric", default="pearson")
    parser.add_argument("--n-boot", type=int, default=2000)
    given = parser.parse_args()
    runs = pd.DataFrame([read(path.parent) for path in sorted(given.runs.rglob("predictions.parquet"))])
    if given.names and not runs.empty:
        runs = runs[runs["name"].isin(given.names)]
    if runs.empty:
        raise InputError(f"no predictions.parquet of {given.names or 'any experiment'} below {given.runs}")
    tables = [compare(part, given.reference, given.metric, given.n_boot) for _, part in runs.groupby(["name", "split"])]
    table = pd.concat(tables, ignore_index=True)
    given.out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(given.out / "controls.csv", index=False)
    print(table.round(3).to_string(index=False))
    draw(table, given.metric, given.out / "controls.png")


def read(folder: Path) -> dict[str, object]:
    """What a run was and what it predicted."""
    config = OmegaConf.load(folder / "config.yaml")
    model = config.model
    weight, system = float(model.graph_loss.weight), str(model._target_).rpartition(".")[2]
    setting = f"lambda {weight:g}"  # a lambda a relation is another study
    if system == "HardMaskTransformer":
        setting = "hard mask"
    elif model.graph_loss._target_.endswith(".RandomNetworks"):
        setting += ", random"
    held = pd.read_parquet(folder / "split.parquet")
    predicted = pd.read_parquet(folder / "predictions.parquet").merge(held[["sample_id", "group"]], on="sample_id")
    return {"name": str(config.name), "split": str(config.split.method), "setting": setting, "weight": weight,
            "seed": int(config.seed), "table": predicted.rename(columns={system: "model"})}  # fmt: skip


def compare(runs: pd.DataFrame, reference: str, name: str, n_boot: int) -> pd.DataFrame:
    """One row a setting of one experiment and split."""
    first = runs["table"].iloc[0]
    for table in runs["table"]:
        if not table["sample_id"].equals(first["sample_id"]):
            raise InputError(f"runs of {runs['name'].iloc[0]} scored other samples; compare runs of one split")
    weights, score = resample(first["group"].to_numpy(), n_boot), metric(name, "regression").function
    measured = first["measured"].to_numpy(dtype=float)

    drawn = {
        setting: {row.seed: row.table["model"].to_numpy(dtype=float) for row in part.itertuples()}
        for setting, part in runs.groupby("setting")
    }
    drawn_values = {
        setting: {seed: score(measured, each, weights) for seed, each in seeds.items()}
        for setting, seeds in drawn.items()
    }
    rows = []
    for setting, seeds in drawn_values.items():
        alone = [float(each[0]) for each in seeds.values()]
        ensemble = score(measured, np.mean(list(drawn[setting].values()), axis=0), weights)
        row = {"name": runs["name"].iloc[0], "split": runs["split"].iloc[0], "setting": setting,
               "lambda": runs.loc[runs["setting"] == setting, "weight"].iloc[0], "seeds": len(seeds)}  # fmt: skip
        row |= spell("", interval(np.mean(list(seeds.values()), axis=0)))
        row |= {"lowest": min(alone), "highest": max(alone), "ensemble": float(ensemble[0])}
        shared = sorted(set(seeds) & set(drawn_values.get(reference, {})))
        if setting != reference and shared:
            more = [drawn_values[reference][seed] - seeds[seed] for seed in shared]
            row |= spell("reference_more_", interval(np.mean(more, axis=0)))
            row |= {"reference_more_lowest": min(each[0] for each in more), "shared_seeds": len(shared)}
        rows.append(row)
    return pd.DataFrame(rows)


def spell(prefix: str, found: Interval) -> dict[str, float]:
    """An interval as three columns."""
    return {f"{prefix}{part}": getattr(found, part) for part in ("value", "low", "high")}


def draw(table: pd.DataFrame, name: str, path: Path) -> None:
    """The metric over lambda, real networks beside random ones; 0 stands at the left edge."""
    groups = [each for each in table.groupby(["name", "split"]) if len(each[1]) > 1]
    if not groups:
        return
    figure, axes = canvas(4.4 * len(groups), 3.2, columns=len(groups))
    for axis, ((experiment, split), part) in zip(axes[0], groups, strict=True):
        for kind, color, label in (("real", BLUE, "true networks"), ("random", ORANGE, "random, same degrees")):
            chosen = part[part["setting"].str.contains("random") == (kind == "random")]
            chosen = chosen[chosen["setting"] != "hard mask"].sort_values("lambda")
            if chosen.empty:
                continue
            place = np.where(chosen["lambda"] > 0, np.log10(chosen["lambda"].clip(lower=1e-9)), -4)
            below, above = chosen["value"] - chosen["low"], chosen["high"] - chosen["value"]
            axis.errorbar(
                place,
                chosen["value"].to_numpy(),
                np.stack([below, above]),
                color=color,
                marker="o",
                ms=4,
                lw=1.2,
                label=label,
            )
        for row in part[part["setting"] == "hard mask"].itertuples():
            axis.axhline(row.value, color=GREY, lw=1, ls="--", label="hard mask")
        axis.set_xticks([-4, -3, -2, -1, 0], ["0", ".001", ".01", ".1", "1"])
        axis.set(xlabel="lambda", ylabel=f"test {name}, mean of seeds", title=f"{experiment}, {split}")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
