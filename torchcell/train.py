"""``python -m torchcell.train``: data, model, training, and the score beside the baselines, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchcell.run.entry import run_entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.datamodules.base import RecordDataModule
    from torchcell.models.base import Model
    from torchcell.run.folder import RunFolder
    from torchcell.run.scoring import Scored


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training run leaves behind.

    Attributes:
        folder: Paths of the run.
        model: With the weights of the best epoch.
        datamodule: Data and split.
        scored: Metrics, verdict and files; None on all processes but the first.
        score: Best validation score, what a search maximises.
    """

    folder: RunFolder
    model: Model
    datamodule: RecordDataModule
    scored: Scored | None
    score: float


def train(cfg: DictConfig) -> Trained:
    """Run what ``cfg`` describes; the same function serves users, tests and searches."""
    import time

    import lightning
    from hydra.utils import instantiate

    from torchcell.run import assemble, checkpoint, loggers, scoring
    from torchcell.run.folder import RunFolder

    started = time.perf_counter()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    folder = RunFolder.open(cfg)
    environment = folder.write_start(cfg)

    datamodule = assemble.datamodule(cfg)
    model: Model = instantiate(cfg.model, _partial_=True)(spec=datamodule.spec)
    model.warmup_steps = cfg.trainer.warmup_steps
    model.checkpoint_extra = {checkpoint.KEY: checkpoint.describe(datamodule.spec, cfg)}
    if folder.resume is not None:
        checkpoint.load(folder.resume).check_same(datamodule.spec, split=True)
    if cfg.init_from is not None:
        start = checkpoint.load(cfg.init_from)
        start.check_same(datamodule.spec, split=False, genes=model.reads_names)
        checkpoint.load_weights(model, start.state, cfg.init_from)

    log, logs = loggers.build_loggers(cfg, folder, environment)
    trainer = assemble.trainer(cfg, folder, logs)
    assemble.announce(cfg, folder, datamodule, model)
    if trainer.is_global_zero:
        datamodule.write(folder.path)
    trainer.fit(model, datamodule, ckpt_path=folder.resume, weights_only=True)

    checkpoint.load_weights(model, checkpoint.read(folder.best)["state_dict"], folder.best)
    history = log.frame() if trainer.is_global_zero else None
    scored = scoring.score(
        trainer,
        model,
        datamodule,
        cfg.baselines,
        part=cfg.evaluation.part,
        n_boot=cfg.evaluation.n_boot,
        seed=cfg.seed,
        history=history,
        min_delta=cfg.trainer.early_stopping.min_delta,
        umap=cfg.evaluation.umap,
    )
    if scored is not None and history is not None:
        facts: dict[str, Any] = {
            "epochs": len(history),
            "seconds": round(float(history["epoch_s"].sum()), 1),
            "peak_mb": float(history["memory_mb"].max()),
            "samples_per_s": float(history["samples_per_s"].median()),
        }
        info = assemble.report_info(cfg, environment, datamodule, facts)
        scored = scoring.write(scored, folder.path, info, history, model, facts)
        loggers.log_outcome(logs, scored.evaluation.table, scored.summary, scored.files)
        scoring.say(scored, started)
    return Trained(folder, model, datamodule, scored, assemble.best_score(trainer))


def main(cfg: DictConfig) -> float:
    """Train, and return the best validation score to a sweeper."""
    return train(cfg).score


if __name__ == "__main__":
    run_entry(main, "config")
