"""``python -m torchcell.evaluate``: score a checkpoint beside its baselines, on the split it was trained with.

``predictions=FILE benchmark=NAME`` judges what another program predicted, see ``judge_command``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torchcell.io.command import in_one_line
from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

    from torchcell.core.datamodule import RecordDataModule
    from torchcell.core.model import Model
    from torchcell.training.checkpoint import Checkpoint
    from torchcell.training.score import Scored, Scoring


def evaluate(cfg: DictConfig) -> Scored:
    """Rebuild the data from the checkpoint's config, check them, score it and its comparators, write the report."""
    import time
    from dataclasses import replace

    from torchcell.io.paths import refuse_links, refuse_unwritable
    from torchcell.training import build, checkpoint, score, write
    from torchcell.training.data_changes import other_values
    from torchcell.training.lock import FolderLock

    started = time.perf_counter()
    for key in ("out", "cell_eval_out"):
        if cfg[key]:
            refuse_unwritable(cfg[key], key)
    saved = checkpoint.load(cfg.ckpt, cfg.trust)
    saved.checked("baselines", cfg.trust)
    model = saved.model(cfg.trust)
    datamodule = build.datamodule_of(saved, cfg.trust, cfg.data_changed)
    datamodule.eval_batch_size = cfg.batch_size or datamodule.eval_batch_size
    changed = bool(other_values(saved.spec, datamodule.spec))
    how = replace(score.scoring_of(saved.config, cfg), data_changed=changed)
    folder = _folder(cfg, saved.path, how == score.scoring_of(saved.config), changed)
    if not cfg.out:
        refuse_links(folder, named=False)
    with FolderLock(folder):
        scored = _scored(cfg, saved, model, datamodule, folder, how)
    write.say(scored, started)
    return scored


def _scored(
    cfg: DictConfig, saved: Checkpoint, model: Model, datamodule: RecordDataModule, folder: Path, how: Scoring
) -> Scored:
    """Score the model beside its baselines and comparators, and write all that into ``folder``."""
    from dataclasses import replace
    from pathlib import Path

    import lightning

    from torchcell.io.run_files import read_json, read_rows
    from torchcell.training import build, comparators, score, write
    from torchcell.training.distributed.placement import OneDeviceANode
    from torchcell.training.run_folder import environment_facts

    config, run = saved.config, saved.path.resolve().parents[1]
    known = run / "metrics.json"
    earlier = read_json(known) if known.is_file() else {}
    # Where nobody knows what the first weights had seen, they may have seen the test samples.
    seen = config.init_from is not None and "starting_weights" in earlier.get("checks", {"starting_weights": "unknown"})
    how = replace(how, started_elsewhere=seen)
    others = comparators.opened(cfg.comparators, saved)
    history = read_rows(run / "history.csv") if (run / "history.csv").is_file() else None
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        plugins=[OneDeviceANode()],  # also in a job of many tasks
    )
    beside = {
        name: comparators.predicted(
            trainer, other, saved, datamodule, how.part, cfg.batch_size, cfg.trust, cfg.data_changed
        )
        for name, other in comparators.named(others, saved, config.baselines).items()
    }
    scored = score.score(
        trainer,
        model,
        datamodule,
        config.baselines,
        how,
        history,
        beside,
    )
    assert scored is not None  # one process
    kept = ("epochs", "seconds", "peak_mb", "samples_per_s", "data_changed")
    facts = {name: earlier[name] for name in kept if name in earlier}
    if how.data_changed:
        facts["data_changed"] = True
    info = build.report_info(config, environment_facts(), datamodule, facts)
    scored = write.write(scored, folder, info, history, facts)
    if cfg.cell_eval_out:
        results = scored.results
        scored.files.extend(datamodule.export(how.part, results.systems[results.model], Path(cfg.cell_eval_out)))
    return scored


def _folder(cfg: DictConfig, ckpt: Path, same: bool, changed: bool) -> Path:
    """Where the tables go: the run's own folder for its best checkpoint, scored as the run did it on its own data; else
    one beside the checkpoint: what a run found is never replaced by what other settings find.

    Raises:
        InputError: ``out`` names the run's own folder, and its data changed.
    """
    from pathlib import Path

    from torchcell.io.errors import InputError

    run = ckpt.resolve().parents[1]
    if cfg.out:
        if changed and Path(cfg.out).resolve() == run:
            raise InputError(f"out={cfg.out} holds the run on its own data, which have changed; name another folder")
        return Path(cfg.out)
    if changed:
        return ckpt.resolve().parent / f"{ckpt.stem}-on-changed-data"
    if ckpt.name == "best.ckpt" and same and (run / "config.yaml").is_file():
        return run
    return ckpt.resolve().parent / f"{ckpt.stem}-evaluated"


OWN_KEYS = ("predictions", "name", "columns", "layer", "values", "out")
"""Arguments of ``judge_command``; all others are the config's, as for a training run."""


@in_one_line
def judge_command(arguments: Sequence[str] | None = None) -> int:
    """Judge a file of predictions: ``predictions=FILE benchmark=NAME split=NAME split.fold=0``.

    Further keys: ``name=`` of the system in the table, ``columns={ours: theirs}``, ``layer=`` of an h5ad file,
    ``values=level|change``, ``out=`` a folder.

    Raises:
        InputError: A key that can't be, a file that can't be read or matched.
    """
    from pathlib import Path

    from omegaconf import OmegaConf

    from torchcell.core.foreign import ForeignColumns
    from torchcell.training.entry import composed, refuse_missing
    from torchcell.training.judge import Judgment, judge

    arguments = sys.argv[1:] if arguments is None else arguments
    own = {key: value for key, _, value in (one.partition("=") for one in arguments) if key in OWN_KEYS}
    given = OmegaConf.from_dotlist([f"columns={own.pop('columns')}"]) if "columns" in own else {}
    cfg = composed("config", [one for one in arguments if one.partition("=")[0] not in OWN_KEYS])
    refuse_missing(cfg)
    columns = dict(given.get("columns") or {})
    how = ForeignColumns(columns, own.get("layer"), own.get("values", "level"))  # type: ignore[arg-type]
    out = Path(own["out"]) if "out" in own else None
    benchmark = next((one.partition("=")[2] for one in arguments if one.startswith("benchmark=")), None)
    judge(cfg, Judgment(own["predictions"], how, own.get("name", "predictions"), out, benchmark))
    return 0


def main() -> int | None:
    """Judge predictions, or evaluate a checkpoint, as the command line says."""
    if any(one.startswith("predictions=") for one in sys.argv[1:]):
        return judge_command()
    run_entry(evaluate, "evaluate")
    return None


if __name__ == "__main__":
    sys.exit(main())
