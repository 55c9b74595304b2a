"""A small run of two processes, one of which is told to end: ``torchrun told_process.py FOLDER RANK [OVERRIDE ...]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import lightning

from tests.training.test_signals import Tell, config
from torchcell.io.errors import InputError
from torchcell.train import train
from torchcell.training import build as assemble
from torchcell.training import score as scoring

if __name__ == "__main__":
    folder, rank, *overrides = sys.argv[1:]
    original = assemble.trainer

    def listening(*arguments: Any) -> lightning.Trainer:
        trainer = original(*arguments)
        if os.environ["RANK"] == rank:
            trainer.callbacks.append(Tell(epoch=1, batch=2))  # type: ignore[attr-defined]
        return trainer

    assemble.trainer = listening
    scoring.score = lambda *arguments, **keywords: None
    many = ("trainer=ddp_cpu", "data.batch_size=8", "trainer.accumulate_grad_batches=1")
    try:
        train(config(Path(folder), *many, *overrides))
    except InputError as error:
        sys.exit(f"error: {error}")
