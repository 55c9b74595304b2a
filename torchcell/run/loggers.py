"""Loggers: ``history.csv`` always; wandb online when logged in, otherwise offline, and never a prompt."""

from __future__ import annotations

import math
import netrc
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from torchcell.callbacks.history import History
from torchcell.run.checkpoint import read
from torchcell.run.folder import RunFolder
from torchcell.run.tracker import FINISH_S, Tracker, reachable, warn_unreachable


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
    is_said = not offline and not reachable()
    if is_said:
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
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    logger.log_hyperparams({str(name): value for name, value in plain.items()})
    if not is_said:
        logger.attempt(lambda: say_where(logger, folder, offline))
    return logger


@rank_zero_only
def say_where(logger: Tracker, folder: Path, offline: bool) -> None:
    """Where wandb has the run: its page, or how to send it there later."""
    later = f"offline; to send it: wandb sync {folder}/wandb/offline-run-*{logger.version}"
    print(f"wandb   {later if offline else logger.experiment.url}", file=sys.stderr, flush=True)


def build_loggers(cfg: DictConfig, folder: RunFolder, environment: dict[str, Any]) -> tuple[History, list[Logger]]:
    """The history, and all loggers of the run: wandb where the config asks for it."""
    history = History(folder.path / "history.csv")
    if folder.resume is not None:
        history.forget_from(int(read(folder.resume)["epoch"]) + 1)
    best = history.best("val/score")
    tracker = None if cfg.logger.wandb is None else wandb_logger(cfg, folder.path, environment, best)
    return history, [history] if tracker is None or tracker.given_up else [history, tracker]


def _name(row: Any, summary: dict[str, Any]) -> str:
    """``<stage>/<phenotype>/<metric>``; the stage of a baseline is ``test_<system>``."""
    stage = row.part if row.system == summary["model"] else f"{row.part}_{row.system}"
    output, _, metric = row.metric.rpartition("/")
    alone = "mean" if len(summary["outputs"]) > 1 else summary["outputs"][0]  # over the outputs
    return f"{stage}/{output or alone}/{metric}"


def log_outcome(loggers: list[Logger], table: pd.DataFrame, summary: dict[str, Any], files: list[Path]) -> None:
    """Give wandb the metrics table, the figures and the summary."""
    for logger in loggers:
        if not isinstance(logger, Tracker):
            continue
        logger.attempt(partial(_tell_outcome, logger, table, summary, files))


def _tell_outcome(logger: WandbLogger, table: pd.DataFrame, summary: dict[str, Any], files: list[Path]) -> None:
    import wandb

    run = logger.experiment
    figures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in files if path.suffix == ".png"}
    run.log(figures | {"metrics": wandb.Table(dataframe=table.astype({"system": str, "metric": str}))})
    scalars = {_name(row, summary): row.value for row in table.itertuples()}
    verdict = {"verdict": summary["verdict"]["text"], "verdict_class": summary["verdict"]["class"]}
    run.summary.update(scalars | verdict | {"collapsed": summary["collapsed"]})
    run.finish()
