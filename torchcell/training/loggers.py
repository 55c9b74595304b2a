"""Loggers of a run: history, steps, wandb, any Lightning logger."""

from __future__ import annotations

import inspect
import math
import netrc
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import requests
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from torchcell.io.cache import atomic_write
from torchcell.io.errors import InputError, readable
from torchcell.training.checkpoint import read
from torchcell.training.run_folder import RunFolder

PREFIX = "step/"
"""Prefix of values of a step; the loggers distinguish them from values of an epoch by it."""


class StepLog(lightning.Callback):
    """Logs every ``every_n_steps``-th optimizer step to all loggers, with the loss of its last batch.

    Args:
        every_n_steps: Steps between two rows; each waits for the device.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._last = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Steps that were made before are logged already."""
        self._last = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step, if it is its turn."""
        step = trainer.global_step
        if step == self._last or step % self.every_n_steps:
            return
        self._last = step
        terms = {f"loss/{name}": value for name, value in pl_module.step_terms.items()}
        values = {"loss": sum(terms.values()), **terms, **pl_module.step_facts}
        row = {f"{PREFIX}{name}": float(value) for name, value in {"epoch": trainer.current_epoch, **values}.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step)


class History(Logger):
    """Collects values by epoch. When a run goes on, the rows of repeated epochs are replaced.

    Args:
        path: The CSV file; its rows are kept.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.steps_path = self.path.with_name("steps.csv")
        self._rows = _known(self.path, "epoch")
        self._steps = _known(self.steps_path, "step")

    @property
    def name(self) -> str:
        """Of the logger."""
        return "history"

    @property
    def version(self) -> str:
        """Empty: there is one file for a run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> History:
        """The logger itself."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: they are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of an epoch, or of a step."""
        values = dict(metrics)
        if step is not None and all(name.startswith(PREFIX) for name in values):
            self._steps[step] = {"step": step} | {name.removeprefix(PREFIX): value for name, value in values.items()}
        if "epoch" not in values:
            return
        epoch = int(values.pop("epoch"))
        self._rows.setdefault(epoch, {"epoch": epoch}).update(values)

    @rank_zero_only
    def save(self) -> None:
        """Write the tables."""
        if self._rows:
            with atomic_write(self.path) as temporary:
                self.frame().to_csv(temporary, index=False)
        if self._steps:
            with atomic_write(self.steps_path) as temporary:
                rows = [self._steps[step] for step in sorted(self._steps)]
                pd.DataFrame(rows).astype({"epoch": int}).to_csv(temporary, index=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table a last time."""
        self.save()

    def forget_from(self, epoch: int) -> None:
        """Drop the rows of ``epoch`` and later, which a resumed run computes again."""
        self._rows = {number: row for number, row in self._rows.items() if number < epoch}
        self._steps = {step: row for step, row in self._steps.items() if row["epoch"] < epoch}

    def best(self, name: str) -> float:
        """The largest value of one column; minus infinity where there is none."""
        return max((row[name] for row in self._rows.values() if row.get(name, math.nan) > -math.inf), default=-math.inf)

    def frame(self) -> pd.DataFrame:
        """One row an epoch, in order."""
        frame = pd.DataFrame([self._rows[epoch] for epoch in sorted(self._rows)])
        return frame.reindex(columns=["epoch", *sorted(set(frame.columns) - {"epoch"})])


def _known(path: Path, key: str) -> dict[int, dict[str, float]]:
    """The rows of a table from an earlier part of the run, by number."""
    rows = pd.read_csv(path, float_precision="round_trip").to_dict("records") if path.is_file() else []
    return {int(row[key]): {str(name): value for name, value in row.items()} for row in rows}


class CheckpointAfterHistory(ModelCheckpoint):
    """Writes the row of an epoch before its checkpoint.

    The trainer logs after it has saved: a run killed in between would lack the row of that epoch when it goes on.
    Killed between row and checkpoint, it makes both again.

    Args:
        history: The logger of rows.
        options: As for ``ModelCheckpoint``.
    """

    def __init__(self, history: History, **options: Any) -> None:
        super().__init__(**options)
        self.history = history

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the row, then the checkpoint."""
        row = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.history.log_metrics({"epoch": trainer.current_epoch, **row})
        self.history.save()
        super().on_train_epoch_end(trainer, pl_module)


FINISH_S = 60.0
"""Longest time that a finished run waits for uploads of wandb; the rest stays in the run folder."""
ANSWER_S = 5.0
"""Longest time that the start of a run waits for wandb's server."""


SCORE = "val/score"
"""Score that the best epoch is chosen by; wandb's summary has its largest value, not the last."""


class GivenUp:
    """A logger that is given up at its first error; history, metrics and report are in the run folder."""

    given_up: bool = False

    def attempt(self, call: Callable[[], Any]) -> None:
        """Call ``call``, unless the logger was given up."""
        if self.given_up:
            return
        try:
            call()
        except Exception as error:  # whatever a logger raises, the run goes on
            self.given_up = True
            why = " ".join(str(error).split())[:200] or type(error).__name__
            rank_zero_warn(f"{self.failed(why)} All is in the run's folder{self.rest()}")

    def failed(self, why: str) -> str:
        """Message on the failure."""
        return f"{type(self).__name__} failed ({why}); the run goes on without it."

    def rest(self) -> str:
        """Message on values that were logged before the failure."""
        return ""


class Tracker(GivenUp, WandbLogger):
    """A ``WandbLogger`` that is given up at its first error.

    Args:
        best: Largest ``val/score`` of the earlier part of a run that goes on.
        options: As for ``WandbLogger``.
    """

    def __init__(self, best: float = -math.inf, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # wandb warns of it, and Lightning always passes it
        self.best = best
        self.attempt(lambda: self.experiment.define_metric(SCORE, step_metric="trainer/global_step", summary="max"))

    def failed(self, why: str) -> str:
        """Message on the failure."""
        return f"wandb failed ({why}); the run goes on without it."

    def rest(self) -> str:
        """Message on how to send the values that wandb had."""
        return f"; what wandb had until now: wandb sync {self.save_dir}/wandb/*{self.version}"

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log, or give up."""
        self.attempt(lambda: self._log(metrics, step))

    def _log(self, metrics: Any, step: int | None) -> None:
        super().log_metrics(metrics, step)
        if SCORE in metrics:
            # wandb would write {max: ...}, forgets it when a run goes on, and a sweep reads a number.
            self.best = max(self.best, float(metrics[SCORE]))
            self.experiment.summary[SCORE] = self.best

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log, or give up."""
        self.attempt(lambda: super(Tracker, self).log_hyperparams(params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close, or give up."""
        self.attempt(lambda: super(Tracker, self).finalize(status))


class AnyLogger(GivenUp, Logger):
    """A Lightning logger of the user's choice that is given up at its first error.

    Args:
        inner: The logger.
    """

    def __init__(self, inner: Logger) -> None:
        super().__init__()
        self.inner = inner

    def failed(self, why: str) -> str:
        """Message on the failure."""
        return f"{type(self.inner).__name__} failed ({why}); the run goes on without it."

    @property
    def name(self) -> str | None:
        """Of the logger."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """Of the logger."""
        return self.inner.version

    @property
    def save_dir(self) -> str | None:
        """Where the logger writes."""
        return self.inner.save_dir

    @property
    def experiment(self) -> Any:
        """What the logger logs to, where it has such a thing."""
        return getattr(self.inner, "experiment", None)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log, or give up."""
        self.attempt(lambda: self.inner.log_metrics(metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log, or give up."""
        self.attempt(lambda: self.inner.log_hyperparams(params, *args, **kwargs))

    @rank_zero_only
    def save(self) -> None:
        """Write, or give up."""
        self.attempt(self.inner.save)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close, or give up."""
        self.attempt(lambda: self.inner.finalize(status))

    @rank_zero_only
    def log_figure(self, name: str, path: Path) -> None:
        """Log a PNG file by what there is: ``log_image``, ``add_image`` (TensorBoard) or ``log_artifact`` (MLflow)."""
        self.attempt(lambda: self._log_figure(name, path))

    def _log_figure(self, name: str, path: Path) -> None:
        if hasattr(self.inner, "log_image"):
            self.inner.log_image(name, [str(path)])
        elif hasattr(self.experiment, "add_image"):
            from matplotlib.image import imread

            self.experiment.add_image(name, imread(path), dataformats="HWC")
        elif hasattr(self.experiment, "log_artifact") and hasattr(self.inner, "run_id"):
            self.experiment.log_artifact(self.inner.run_id, str(path))


def reachable() -> bool:
    """Whether wandb's server answers at all; proxies of the environment are used."""
    import wandb

    try:
        requests.get(str(wandb.Settings().base_url), timeout=ANSWER_S)
    except requests.RequestException:
        return False
    return True


def warn_unreachable(folder: Path) -> None:
    """Warn that the run is logged offline, and say how to send it later."""
    rank_zero_warn(
        f"wandb's server does not answer from here; the run is logged offline: wandb sync {folder}/wandb/offline-run-*"
    )


OWN_KEYS = ("_target_", "wandb", "every_n_steps")
"""Keys of ``logger`` that are no arguments of a logger of the user's choice."""


def logged_in() -> bool:
    """Whether wandb can go online without asking: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(cfg: DictConfig, folder: Path, environment: dict[str, Any], best: float = -math.inf) -> Tracker:
    """The run's wandb logger; the id stays when the run goes on. WANDB_MODE overrules the choice of mode.

    Where the server can't be reached, as on a compute node without internet, the run is logged offline. One line says
    where it is logged; wandb itself says nothing.

    Args:
        cfg: The composed config.
        folder: Of the run.
        environment: Content of ``environment.json``.
        best: Largest ``val/score`` so far, of a run that goes on.
    """
    offline = os.environ.get("WANDB_MODE", "online" if logged_in() else "offline") != "online"
    is_unreachable = not offline and not reachable()
    if is_unreachable:
        warn_unreachable(folder)
        offline = True
    job = os.environ.get("SLURM_JOB_ID") or pd.Timestamp.now().strftime("%Y%m%d")
    group = f"{environment['host']}-{job}-{environment['config_hash'][:8]}"
    import wandb

    if wandb.run is not None:  # left open by a run of this process that failed; it must not receive this one's values
        wandb.finish()
    logger = Tracker(
        best,
        project=cfg.logger.wandb.project,
        name=f"{cfg.name}-{folder.name}",
        group=group,
        tags=list(cfg.logger.wandb.tags),
        save_dir=str(folder),
        id=environment["wandb_id"],
        resume="allow",
        offline=offline,
        settings=wandb.Settings(finish_timeout=FINISH_S, silent=True),
    )
    logger.log_hyperparams(_plain(cfg))
    if not is_unreachable:
        logger.attempt(lambda: say_where(logger, folder, offline))
    return logger


@rank_zero_only
def say_where(logger: Tracker, folder: Path, offline: bool) -> None:
    """Print the page of the run at wandb, or how to send it there later."""
    later = f"offline; to send it: wandb sync {folder}/wandb/offline-run-*{logger.version}"
    print(readable(f"wandb   {later if offline else logger.experiment.url}"), file=sys.stderr, flush=True)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def chosen_logger(cfg: DictConfig, folder: Path, environment: dict[str, Any]) -> AnyLogger:
    """The logger that ``logger._target_`` names, with the other keys of ``logger`` as its arguments.

    ``save_dir``, ``name`` and ``version`` are the run's folder, name and id where the logger takes them and the config
    does not give them; so a run that goes on logs to the same place.

    Args:
        cfg: The composed config.
        folder: Of the run.
        environment: Content of ``environment.json``.

    Raises:
        InputError: No such class, one that is no Lightning logger, wrong arguments, a package that is missing.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import get_class, instantiate

    target = str(cfg.logger["_target_"])
    given = {str(name): value for name, value in cfg.logger.items() if name not in OWN_KEYS}
    of_run = {"save_dir": str(folder), "name": f"{cfg.name}-{folder.name}", "version": environment["wandb_id"]}
    try:
        takes = inspect.signature(get_class(target)).parameters
        arguments = {name: value for name, value in of_run.items() if name in takes} | given
        logger = instantiate({"_target_": target, **arguments})
    except (InstantiationException, ImportError, TypeError, ValueError) as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"logger._target_={target} can't be made: {why}") from error
    if not isinstance(logger, Logger):
        raise InputError(f"logger._target_={target} is no Lightning logger (lightning.pytorch.loggers.Logger)")
    wrapped = AnyLogger(logger)
    wrapped.log_hyperparams(_plain(cfg))
    return wrapped


def build_loggers(cfg: DictConfig, folder: RunFolder, environment: dict[str, Any]) -> tuple[History, list[Logger]]:
    """The history, and all loggers of the run: wandb, or another, where the config asks for it."""
    history = History(folder.path / "history.csv")
    if folder.resume is not None:
        history.forget_from(int(read(folder.resume)["epoch"]) + 1)
    best = history.best("val/score")
    logs: list[Logger] = [history]
    if cfg.logger.get("wandb") is not None:
        tracker = wandb_logger(cfg, folder.path, environment, best)
        logs += [] if tracker.given_up else [tracker]
    if cfg.logger.get("_target_") is not None:
        logs.append(chosen_logger(cfg, folder.path, environment))
    return history, logs


def _name(row: Any, summary: dict[str, Any]) -> str:
    """``<stage>/<phenotype>/<metric>``; the stage of a baseline is ``test_<system>``."""
    stage = row.part if row.system == summary["model"] else f"{row.part}_{row.system}"
    output, _, metric = row.metric.rpartition("/")
    single = "mean" if len(summary["outputs"]) > 1 else summary["outputs"][0]  # over the outputs
    return f"{stage}/{output or single}/{metric}"


@rank_zero_only
def log_outcome(loggers: list[Logger], table: pd.DataFrame, summary: dict[str, Any], files: list[Path]) -> None:
    """Give wandb the metrics table, the figures and the summary; other loggers the metrics, and figures if they can."""
    figures = {f"figures/{path.stem}": path for path in files if path.suffix == ".png"}
    metrics: dict[str, float] = {_name(row, summary): row.value for row in table.itertuples()}  # type: ignore[misc]
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.attempt(partial(_log_to_wandb, logger, table, metrics, figures, summary))
        elif isinstance(logger, AnyLogger):
            logger.log_metrics({name: value for name, value in metrics.items() if not math.isnan(value)})
            for name, path in figures.items():
                logger.log_figure(name, path)
            logger.save()
            logger.finalize("success")


def _log_to_wandb(
    logger: WandbLogger,
    table: pd.DataFrame,
    metrics: dict[str, float],
    figures: dict[str, Path],
    summary: dict[str, Any],
) -> None:
    import wandb

    run = logger.experiment
    images = {name: wandb.Image(str(path)) for name, path in figures.items()}
    run.log(images | {"metrics": wandb.Table(dataframe=table.astype({"system": str, "metric": str}))})
    verdict = {"verdict": summary["verdict"]["text"], "verdict_class": summary["verdict"]["class"]}
    run.summary.update(metrics | verdict | {"collapsed": summary["collapsed"]})
    run.finish()


@rank_zero_only
def log_pruned(loggers: list[Logger], epoch: int) -> None:
    """Log that a search stopped the run after ``epoch``, and close the loggers."""
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.attempt(partial(_close_wandb, logger, epoch))
        elif isinstance(logger, AnyLogger):
            logger.log_metrics({"pruned_after_epoch": float(epoch)})
            logger.finalize("success")


def _close_wandb(logger: WandbLogger, epoch: int) -> None:
    logger.experiment.summary["pruned_after_epoch"] = epoch
    logger.experiment.finish()
