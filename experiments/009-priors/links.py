"""Pools runs on the folds of one benchmark of links: a system against another on all eight metrics, paired.

python experiments/009-priors/links.py OUT RUN_FOLDER... [model=stack ...] -- SYSTEM OTHER

Clusters are source nodes, resampled over all folds together; a metric is the mean of its values on the folds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

RESAMPLES = 500
SCORES = {"auroc": roc_auc_score, "auprc": average_precision_score}


def values(
    labels: pd.DataFrame, ranks: pd.DataFrame, system: str, weight: Mapping[str, int] | None
) -> dict[str, float]:
    """Each metric as the mean over folds; ``weight`` of the source nodes, none: 1."""
    found: dict[str, list[float]] = {}
    for table, is_rank in ((labels, False), (ranks, True)):
        counted = np.ones(len(table)) if weight is None else table["source"].map(weight).fillna(0).to_numpy()
        for (_, target), at in table.groupby(["fold", "target"], sort=False).indices.items():
            w, value = counted[at], table[system].to_numpy()[at]
            if is_rank:
                one = {"mrr": 1 / value, "hits@10": value <= 10}
                scores = {name: np.average(each, weights=w) for name, each in one.items() if w.sum()}
            else:
                truth = table["measured"].to_numpy()[at]
                both = w[truth == 1].sum() and w[truth == 0].sum()
                scores = {name: score(truth, value, sample_weight=w) for name, score in SCORES.items() if both}
            for name, score in scores.items():
                found.setdefault(f"{target}/{name}", []).append(score)
    return {name: float(np.mean(each)) for name, each in found.items()}


def main(out: Path, runs: list[Path], system: str, other: str) -> None:
    """Write ``OUT``: metric, both systems, difference, low, high."""
    labels, ranks = (
        pd.concat([pd.read_parquet(run / name).assign(fold=run.name) for run in runs])
        for name in ("predictions.parquet", "ranks.parquet")
    )
    labels = labels.dropna(subset="measured")
    for table in (labels, ranks):
        table["source"] = table["sample_id"].str.partition("|")[0]
    names = labels["source"].unique()
    first, second = (values(labels, ranks, name, None) for name in (system, other))
    draws, rng = [], np.random.default_rng(0)
    for _ in range(RESAMPLES):
        weight = dict(zip(names, rng.multinomial(len(names), np.full(len(names), 1 / len(names))), strict=True))
        one, two = (values(labels, ranks, name, weight) for name in (system, other))
        draws.append({name: one[name] - two[name] for name in one})
    low, high = pd.DataFrame(draws).quantile([0.025, 0.975]).to_numpy()
    table = pd.DataFrame({"metric": list(first), system: first.values(), other: second.values()})
    table["difference"] = table[system] - table[other]
    table["low"], table["high"] = (dict(zip(pd.DataFrame(draws), each, strict=True)) for each in (low, high))
    table.to_csv(out, index=False, float_format="%.4f")
    print(table.round(4).to_string())


if __name__ == "__main__":
    split = sys.argv.index("--")
    main(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:split]], *sys.argv[split + 1 : split + 3])
