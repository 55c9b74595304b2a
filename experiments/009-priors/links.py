"""Pools runs on the folds of one benchmark of links: one system against another on all eight metrics, paired.

python experiments/009-priors/links.py OUT SYSTEM OTHER RUN_FOLDER...

Clusters are source nodes, resampled over all folds together; a metric is the mean of its values on the folds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

RESAMPLES = 1000


def auroc(truth: np.ndarray, score: np.ndarray, weight_Rn: np.ndarray) -> np.ndarray:
    """Share of pairs in order, ties half, for each row of weights."""
    positive, negative = weight_Rn[:, truth == 1], weight_Rn[:, truth == 0]
    apart = score[truth == 1][:, None] - score[truth == 0]
    won = ((positive @ ((apart > 0) + 0.5 * (apart == 0))) * negative).sum(1)
    return won / (positive.sum(1) * negative.sum(1))


def auprc(truth: np.ndarray, score: np.ndarray, weight_Rn: np.ndarray) -> np.ndarray:
    """Average precision for each row of weights."""
    order = np.argsort(-score, kind="stable")
    weight_Rn, hit_Rn = weight_Rn[:, order], weight_Rn[:, order] * truth[order]
    precision = np.cumsum(hit_Rn, 1) / np.maximum(np.cumsum(weight_Rn, 1), 1)
    return (hit_Rn * precision).sum(1) / hit_Rn.sum(1)


def values(labels: pd.DataFrame, ranks: pd.DataFrame, system: str, weight_RS: pd.DataFrame) -> pd.DataFrame:
    """Each metric as the mean over folds [R, metrics]; ``weight_RS`` has a column a source node."""
    found: dict[str, list[np.ndarray]] = {}
    for table, is_rank in ((labels, False), (ranks, True)):
        for (_, target), part in table.groupby(["fold", "target"], sort=False):
            weight, value = weight_RS[part["source"]].to_numpy(), part[system].to_numpy()
            if is_rank:
                each = {"mrr": 1 / value, "hits@10": (value <= 10).astype(float)}
                scores = {name: weight @ one / weight.sum(1) for name, one in each.items()}
            else:
                truth = part["measured"].to_numpy()
                scores = {"auroc": auroc(truth, value, weight), "auprc": auprc(truth, value, weight)}
            for name, score in scores.items():
                found.setdefault(f"{target}/{name}", []).append(score)
    return pd.DataFrame({name: np.nanmean(each, axis=0) for name, each in found.items()})


def main(out: Path, system: str, other: str, runs: list[Path]) -> None:
    """Write ``OUT``: metric, both systems, difference, low, high."""
    labels, ranks = (
        pd.concat([pd.read_parquet(run / name).assign(fold=run.name) for run in runs], ignore_index=True)
        for name in ("predictions.parquet", "ranks.parquet")
    )
    labels = labels.dropna(subset="measured")
    for table in (labels, ranks):
        table["source"] = table["sample_id"].str.partition("|")[0]
    names = np.unique(np.concatenate([labels["source"], ranks["source"]]))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    weight_RS = pd.DataFrame(np.concatenate([np.ones((1, len(names))), drawn]), columns=names)
    one, two = (values(labels, ranks, name, weight_RS) for name in (system, other))
    apart = one - two
    table = pd.DataFrame({"metric": one.columns, system: one.iloc[0].to_numpy(), other: two.iloc[0].to_numpy()})
    table["difference"] = apart.iloc[0].to_numpy()
    table["low"], table["high"] = apart.iloc[1:].quantile([0.025, 0.975]).to_numpy()
    table.to_csv(out, index=False, float_format="%.4f")
    print(table.round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], [Path(one) for one in sys.argv[4:]])
