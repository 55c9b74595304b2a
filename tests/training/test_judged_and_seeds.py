"""What stands beside a verdict: that of the run for those who predict, and the spread over seeds of one config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.evaluate import Evaluation, evaluate
from torchcell.evaluation.results import Results
from torchcell.training.score import judged_as
from torchcell.training.write import other_seeds

SUMMARY = {"split_hash": "h", "part": "test", "model": "net"}


def evaluated() -> Evaluation:
    rng = np.random.default_rng(0)
    measured, names = rng.normal(size=(60, 1)), np.arange(60).astype(str)
    systems = {"net": measured + rng.normal(size=(60, 1)), "mean": np.zeros((60, 1))}
    return evaluate(Results(names, names, ("y",), measured, systems, model="net"), n_boot=50)


def finished(folder: Path, value: float, **changes: str) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(SUMMARY | changes))
    pd.DataFrame(
        {"system": ["net"], "part": ["test"], "metric": ["pearson"], "value": [value], "low": [value], "high": [value]}
    ).to_csv(folder / "metrics.csv")


def test_the_spread_over_seeds_stands_beside_the_verdict_of_one(tmp_path: Path) -> None:
    """Another number of threads moved a score by .012, as much as many differences that are claimed."""
    found = evaluated()
    own = float(found.table.query("system == 'net' and metric == 'pearson'").value.iloc[0])
    finished(tmp_path / "abc-s1", own - 0.2)
    finished(tmp_path / "abc-s2", 0.9, split_hash="another")
    finished(tmp_path / "xyz-s3", 0.9)
    finished(tmp_path / "abc-s4", 0.9)
    (tmp_path / "abc-s4" / "metrics.json").write_text("{")  # damaged: it ended the run that asked
    seeds = other_seeds(tmp_path / "abc-s0", found, found.results[0], SUMMARY)
    assert seeds is not None
    assert set(seeds.values) == {0, 1}
    assert seeds.summary()["sd"] == pytest.approx(0.2 / np.sqrt(2))
    assert seeds.text.startswith(f"2 seeds of this config: pearson {own - 0.1:.3f} ± 0.141")
    assert other_seeds(tmp_path / "lone-s0", found, found.results[0], SUMMARY) is None


def test_predict_is_told_what_the_run_found(tmp_path: Path) -> None:
    ckpt = tmp_path / "checkpoints" / "best.ckpt"
    ckpt.parent.mkdir()
    assert judged_as(ckpt) == ""
    text = "no verdict: input ignored (perturbation)"
    (tmp_path / "metrics.json").write_text(json.dumps({"model": "Dango", "verdict": {"text": text}}))
    assert judged_as(ckpt) == f"its run's verdict: Dango: {text}"
    assert (
        judged_as(ckpt.with_name("last.ckpt")) == f"its run's verdict (of best.ckpt, not of last.ckpt): Dango: {text}"
    )
    (tmp_path / "metrics.json").write_text(json.dumps({"model": "Dango", "verdict": "beats 1 of 4"}))
    assert judged_as(ckpt) == ""
