"""kill -9 at random moments of a run's life, then the same command again: the end must be that of a run left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from outcome import Outcome
from small import config

OVERRIDES = (
    "trainer.max_epochs=25",
    "trainer.early_stopping.patience=8",
    "++model.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max, "
    "factor: 0.5, patience: 1, threshold: 0.2}",
    "ckpt_path=auto",
)
"""With all that must be remembered over a kill: draws, warm-up, a plateau's count, early stopping."""
PRELOADED = ["torchcell.train", "torchcell.training.build", "torchcell.training.score", "torchcell.screen.models.dango"]
LOG = "log.txt"
"""Its making is the first act of a run."""


def run(folder: Path, say: Callable[[str], None], tries: int = 20, parallel: int = 2) -> Outcome:
    """Kill ``tries`` runs, each at its own moment from the first file to the last.

    A server that has imported all forks each run: the import writes nothing, and would be most of the run's life.
    """
    os.environ["TORCHCELL_DATA"] = str(folder / "data")
    os.environ["OMP_NUM_THREADS"] = "1"
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    _spawn(server, folder / "warm").join()  # fills the caches, so that all lives are alike
    start = time.monotonic()
    for process in [_spawn(server, folder / f"whole{i}") for i in range(parallel)]:  # as crowded as those to come
        process.join()
    life = time.monotonic() - start
    whole = read(folder / "whole0")
    say(f"an uninterrupted run: {life:.0f} s, {len(whole['history'])} epochs")
    draw = random.Random(0)
    moments = [(i + draw.random()) / tries for i in range(tries)]

    def one(number: int) -> tuple[str, int]:
        wrong, again = _killed(server, folder / f"kill{number}", moments[number] * life, whole)
        say(f"kill {number + 1} of {tries} at {moments[number]:.0%}: {wrong or 'equal'}, {again} epoch(s) redone")
        return wrong, again

    with ThreadPoolExecutor(parallel) as pool:
        found = list(pool.map(one, range(tries)))
    twice = [f"the same command twice: {what}" for what in differences(whole, read(folder / f"whole{parallel - 1}"))]
    wrong = (*twice, *(f"kill {i + 1}: {what}" for i, (what, _) in enumerate(found) if what))
    redone = max(again for _, again in found)
    return Outcome("kill -9 at a random moment, then the same command again", tries, f"{redone} epoch at most", wrong)


def _killed(server: Any, folder: Path, after_s: float, whole: dict[str, Any]) -> tuple[str, int]:
    """What differs from the uninterrupted run, and how many epochs were trained twice."""
    process = _spawn(server, folder)
    while not (folder / LOG).is_file() and process.is_alive():
        time.sleep(0.01)
    process.join(after_s)
    killed = process.is_alive()
    process.kill()
    process.join()
    rows = _epochs(folder)
    kept = torch.load(last, weights_only=True)["epoch"] + 1 if (last := _one(folder, "last.ckpt")) else 0
    again = _spawn(server, folder)
    again.join()
    if again.exitcode:
        return f"the second start left with {again.exitcode}", 0
    rest = [path.name for path in folder.rglob(".*.part*")]
    redone = max(rows - kept, 1) if killed and kept < len(whole["history"]) else 0
    return " ".join([*differences(whole, read(folder)), *rest]), redone


def _spawn(server: Any, folder: Path) -> Any:
    process = server.Process(target=_train, args=(str(folder),))
    process.start()
    return process


def _train(folder: str) -> None:
    """One run, its words in a file."""
    from torchcell.train import train
    from torchcell.training.run_folder import finished_score

    Path(folder).mkdir(parents=True, exist_ok=True)
    log = os.open(f"{folder}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    cfg = config(Path(folder), *OVERRIDES)
    if finished_score(cfg) is None:
        train(cfg)


def _one(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.rglob(name))), None)


def _epochs(folder: Path) -> int:
    path = _one(folder, "history.csv")
    return len(pd.read_csv(path)) if path else 0


def read(folder: Path) -> dict[str, Any]:
    """What a finished run left: weights of both checkpoints, history, scores, predictions."""
    found: dict[str, Any] = {}
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(_one(folder, name), weights_only=True)
        found[name] = {"epoch": torch.tensor(content["epoch"]), **content["state_dict"]}
    found["history"] = pd.read_csv(_one(folder, "history.csv"))[["epoch", "train/loss", "val/score", "train/grad_norm"]]
    found["metrics"] = pd.read_csv(_one(folder, "metrics.csv"))
    found["predictions"] = pd.read_parquet(_one(folder, "predictions.parquet"))
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What is not the same to the last bit."""
    found = []
    for name, value in one.items():
        if isinstance(value, pd.DataFrame):
            same = value.equals(other[name])
        else:
            same = all(torch.equal(tensor, other[name][key]) for key, tensor in value.items())
        if not same:
            found.append(f"{name} differs")
    return found
