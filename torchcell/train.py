"""``python -m torchcell.train``: data, model, training, and the score beside the baselines, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.core.datamodule import RecordDataModule
    from torchcell.core.model import Model
    from torchcell.training.distributed.processes import DistributedContext
    from torchcell.training.distributed.slurm import Signals
    from torchcell.training.run_folder import RunFolder
    from torchcell.training.score import Scored


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training run leaves behind.

    Attributes:
        folder: Paths of the run.
        model: With the weights of the best epoch.
        datamodule: Data and split.
        scored: Metrics, verdict and files; None on all processes but the first.
        score: Best validation score, what a search maximizes.
        pruned: The epoch after which a search stopped its trial; such a run is not scored.
    """

    folder: RunFolder
    model: Model
    datamodule: RecordDataModule
    scored: Scored | None
    score: float
    pruned: int | None = None


def train(cfg: DictConfig) -> Trained:
    """Run what ``cfg`` describes; the same function serves users, tests and searches."""
    import os

    from omegaconf import OmegaConf, open_dict

    from torchcell.training.distributed.processes import run_in_processes
    from torchcell.training.model_task import refuse_other_task

    refuse_other_task(cfg)
    if OmegaConf.select(cfg, "paths.origin") is None:
        with open_dict(cfg):
            cfg.paths.origin = os.getcwd()
    trained: Trained = run_in_processes(train_process, cfg)
    return trained


def train_process(cfg: DictConfig, process: DistributedContext) -> Trained:
    """One process's part of the run."""
    import lightning

    from torchcell.io.paths import looking_in
    from torchcell.training.distributed.slurm import Signals
    from torchcell.training.memory import memory_explained
    from torchcell.training.run_folder import RunFolder

    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    with process.first_before_others("folder"):
        folder = RunFolder.open(cfg, process.rank == 0)
    elsewhere = looking_in(cfg.paths.origin)
    with folder, elsewhere, memory_explained(cfg, folder), Signals(folder.last) as signals:
        return _train(cfg, process, folder, signals)


def _train(cfg: DictConfig, process: DistributedContext, folder: RunFolder, signals: Signals) -> Trained:
    import time
    from dataclasses import replace

    from torchcell.training import build, checkpoint, loggers, memory, score, write
    from torchcell.training.prior import fit_prior

    started = time.perf_counter()
    resumed = None if folder.resume is None else checkpoint.load(folder.resume)
    if resumed is not None:
        resumed.check_epochs(cfg.trainer.max_epochs, elsewhere=folder.goes_elsewhere)
    datamodule = build.datamodule(cfg)
    prior, spec = fit_prior(datamodule, cfg)
    model = checkpoint.built(cfg.model, spec)
    model.warmup_steps = cfg.trainer.warmup_steps
    model.checkpoint_extra = {checkpoint.KEY: checkpoint.describe(spec, cfg, prior)}
    facts: dict[str, Any] = {"data_fingerprint": datamodule.spec.data_fingerprint}
    if resumed is not None and resumed.check_data(datamodule.spec, cfg.data_changed):
        facts["data_changed"] = True
    how = score.scoring_of(cfg)
    if cfg.init_from is not None:
        start = checkpoint.load(cfg.init_from)
        how = replace(how, started_elsewhere=build.another_split(start.spec, datamodule.spec))
        start.check_names(datamodule.spec, genes=model.reads_names)
        checkpoint.load_weights(model, start.state, cfg.init_from, fit_follows=True)
    with process.first_before_others("environment"):  # from here on the run is there
        environment = folder.write_start(cfg, facts, process.rank == 0)

    with folder.gone_unless_trained():
        log, logs = loggers.build_loggers(cfg, folder, environment)
        trainer = build.trainer(cfg, folder, logs, process, signals)
        build.announce(cfg, folder, datamodule, model)
        if trainer.is_global_zero:
            datamodule.write(folder.path)
        trainer.fit(model, datamodule, ckpt_path=folder.resume, weights_only=True)
        folder.check_trained()
    checkpoint.load_weights(model, checkpoint.read(folder.best)["state_dict"], folder.best)
    pruned = build.pruned_after(trainer)
    if pruned is not None:
        if trainer.is_global_zero:
            folder.write_pruned(pruned, build.best_score(trainer))
            loggers.log_pruned(logs, pruned)
        return Trained(folder, model, datamodule, None, build.best_score(trainer), pruned)
    history = log.frame() if trainer.is_global_zero else None
    scored = score.score(trainer, model, datamodule, cfg.baselines, how, history)
    if scored is not None and history is not None:
        facts = write.facts_of(history, environment)
        info = build.report_info(cfg, environment, datamodule, facts)
        rate = facts["samples_per_s"] / process.world
        scored.sections["What memory options cost and save"] = lambda: memory.memory_sections(
            cfg, datamodule, process.device, rate
        )
        scored = write.write(scored, folder.path, info, history, facts)
        loggers.log_outcome(logs, scored.evaluation.table, scored.summary, scored.files)
        write.say(scored, started)
    return Trained(folder, model, datamodule, scored, build.best_score(trainer))


def main(cfg: DictConfig) -> float:
    """Train, and return the best validation score to a sweeper; ``ckpt_path=auto`` reads it off a finished run.

    Raises:
        TrialPruned: A search stopped this trial.
    """
    from torchcell.training.run_folder import finished_score, refuse_running

    score = finished_score(cfg)
    if score is not None:
        return score
    refuse_running(cfg)
    trained = train(cfg)
    if trained.pruned is not None:
        from optuna import TrialPruned

        raise TrialPruned(f"pruned after epoch {trained.pruned}, val/score {trained.score:.4g}: {trained.folder.path}")
    return trained.score


if __name__ == "__main__":
    run_entry(main, "config")
