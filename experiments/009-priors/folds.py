"""Scores the baselines of a config over folds, the stack against each, by the evaluator of every run; none is trained.

python experiments/009-priors/folds.py OUT 0,1,2,3,4 benchmark=l1000_level3
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from torchcell.evaluation.comparison import to_frame
from torchcell.evaluation.evaluate import Evaluation, evaluate
from torchcell.evaluation.pooled import over_folds
from torchcell.training import build
from torchcell.training.baselines import fit_baselines
from torchcell.training.entry import conf_dir

MODEL = "stack"
HEADLINE = "4"
"""The fold that is looked at once; settings may have been chosen on the others."""


def one_fold(overrides: list[str]) -> tuple[Evaluation, dict[str, float], list[dict[str, float]]]:
    """The evaluation of the test part, CPU seconds by baseline (few where cached), and what carries the stack."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides)
    data = build.datamodule(cfg)
    predictions: dict[str, dict[str, object]] = {}
    seconds, carried = {}, []
    for name, config in cfg.baselines.items():
        if config is not None:
            start = time.process_time()
            fitted = fit_baselines(data, {name: config}, "test")
            seconds[name] = time.process_time() - start
            carried = fitted.contributions.get(MODEL, carried)
            for record, found in fitted.predictions.items():
                predictions.setdefault(record, {}).update(found)
    return evaluate(data.results("test", predictions, MODEL, None), cfg.evaluation.n_boot), seconds, carried


def main(out: Path, folds: list[str], overrides: list[str]) -> None:
    """Write ``metrics.csv``, ``by_fold.csv``, ``seconds.csv`` and ``sources.json``; ``comparisons.csv`` over folds."""
    out.mkdir(parents=True, exist_ok=True)
    tables, rows, seconds, clusters, sources = [], [], [], {}, {}
    for fold in folds:
        found, spent, sources[fold] = one_fold([*overrides, f"split.fold={fold}"])
        tables.append(found.table.assign(fold=fold))
        rows.append(to_frame(found.verdict.every).assign(run=fold, split=fold))
        seconds.append(pd.Series(spent, name=fold))
        deciding = next(one for one in found.results if one.decides)
        clusters[fold] = {str(name) for name in deciding.group.ravel()} - {""}
        print(fold, found.verdict.text, flush=True)
        pd.concat(tables).to_csv(out / "metrics.csv", index=False, float_format="%.5g")
        pd.DataFrame(seconds).rename_axis("fold").to_csv(out / "seconds.csv", float_format="%.3g")
        (out / "sources.json").write_text(json.dumps(sources, indent=1))
        (out / "clusters.json").write_text(json.dumps({one: sorted(named) for one, named in clusters.items()}))
        every = pd.concat(rows)
        every.to_csv(out / "by_fold.csv", index=False, float_format="%.5g")
        chosen_on = [one for one in clusters if one != HEADLINE]
        pooled = {"all": list(clusters), " ".join(chosen_on): chosen_on, HEADLINE: [HEADLINE]}
        parts = [
            to_frame(over_folds(every[every.run.isin(some)], {one: clusters[one] for one in some})).assign(folds=name)
            for name, some in pooled.items()
            if some and set(some) <= set(clusters)
        ]
        pd.concat(parts).to_csv(out / "comparisons.csv", index=False, float_format="%.5g")
    print(pd.concat(parts).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
