"""Scores the baselines of a run's config, the stack against each, by the evaluator of every run; nothing is trained.

python experiments/009-priors/compare.py OUT benchmark=costanzo2010_ontology split=query_disjoint split.fold=0
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from torchcell.evaluation.comparison import to_frame
from torchcell.evaluation.evaluate import evaluate
from torchcell.training import build
from torchcell.training.baselines import fit_baselines
from torchcell.training.entry import conf_dir

MODEL = "stack"


def main(out: Path, overrides: list[str]) -> None:
    """Write ``metrics.csv``, ``comparisons.csv`` and, of each output, ``sources.json``."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides)
    data = build.datamodule(cfg)
    fitted = fit_baselines(data, cfg.baselines, "test")
    (results,) = data.results("test", fitted.predictions, MODEL, None)
    evaluation = evaluate(results, cfg.evaluation.n_boot)
    out.mkdir(parents=True, exist_ok=True)
    evaluation.table.to_csv(out / "metrics.csv", index=False)
    to_frame(evaluation.verdict.every).to_csv(out / "comparisons.csv", index=False)
    (out / "sources.json").write_text(json.dumps(fitted.contributions, indent=1))
    print(evaluation.table.to_string())
    print(to_frame(evaluation.verdict.every).to_string())
    print(evaluation.verdict.text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
