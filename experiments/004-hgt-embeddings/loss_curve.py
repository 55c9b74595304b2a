"""Does the loss leave chance? BCE of links + BCE of negatives by epoch; 2 ln 2 where all log-odds are 0.

    python -m torchcell.train +experiment=hetionet_hgt model.losses.links=bce name=hetionet_hgt_bce
    python experiments/004-hgt-embeddings/loss_curve.py RUN/history.csv -o FOLDER/loss_curve.png

The history holds weighted terms: `--weight` is `model.loss_weights.target` of the run.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from torchcell.report.plots import BLUE, GREY, INK, canvas

CURVES = (("train/loss/target", BLUE, "training, shared negatives"), ("val_sample/link_bce", INK, "validation batch"))


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path, help="history.csv of a run with model.losses.links=bce")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the figure")
    parser.add_argument("--weight", type=float, default=1.0, help="model.loss_weights.target")
    given = parser.parse_args()
    history = pd.read_csv(given.history)
    history["train/loss/target"] /= given.weight
    figure, axes = canvas(5.2, 3.2)
    axis = axes[0, 0]
    axis.axhline(2 * math.log(2), color=GREY, lw=1, ls="--", label="constant log-odds, 2 ln 2")
    for name, color, label in CURVES:
        rows = history[["epoch", name]].dropna()
        axis.plot(rows["epoch"], rows[name], color=color, lw=1.6, marker="o", ms=3, label=label)
    axis.set(xlabel="epoch", ylabel="BCE of links + BCE of negatives", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(given.out, dpi=150)
    print(history[["epoch", *(name for name, _, _ in CURVES)]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
