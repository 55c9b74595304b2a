"""How far the score of one seed is from those of others: runs of the same config beside this one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from torchcell.metrics.evaluate import Evaluation
from torchcell.metrics.results import Results


@dataclass(frozen=True)
class Seeds:
    """The primary metric of the same model under several seeds, this run's included.

    Attributes:
        metric: Its name.
        values: By seed.
    """

    metric: str
    values: dict[int, float]

    @property
    def text(self) -> str:
        """For the reader: a difference within this spread is not one."""
        values = np.array(list(self.values.values()))
        return (
            f"{len(values)} seeds of this config: {self.metric} {values.mean():.3f} ± {values.std(ddof=1):.3f} "
            f"({values.min():.3f} to {values.max():.3f})"
        )

    def summary(self) -> dict[str, Any]:
        """What ``metrics.json`` holds of it."""
        values = np.array(list(self.values.values()))
        by_seed = {str(seed): value for seed, value in self.values.items()}
        return {"metric": self.metric, "mean": values.mean(), "sd": values.std(ddof=1), "values": by_seed}


def other_seeds(folder: Path, evaluation: Evaluation, results: Results, summary: Mapping[str, Any]) -> Seeds | None:
    """The scores of finished runs of the same config and split with other seeds, and of this one; None without any.

    Args:
        folder: Of the run, ``<config hash>-s<seed>``.
        evaluation: Of the run.
        results: Those of the model.
        summary: What ``metrics.json`` will hold.
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
        theirs = json.loads(files[1].read_text())
        if all(theirs.get(key) == summary[key] for key in ("split_hash", "part", "model")):
            values[int(seed[1])] = _score(pd.read_csv(files[0]), results.model, evaluation.primary)
    known = {seed: value for seed, value in sorted(values.items()) if np.isfinite(value)}
    return Seeds(evaluation.primary, known) if len(known) > 1 else None


def _score(table: pd.DataFrame, model: str, metric: str) -> float:
    found = table.loc[(table["system"] == model) & (table["metric"] == metric), "value"]
    return float(found.iloc[0]) if len(found) else float("nan")
