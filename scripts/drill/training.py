"""Bad days of a run that trains: NaN, no memory, wandb gone, a disk that fills."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from checkpoints import no_file_above, refusal
from outcome import Outcome, judged
from small import config

from torchcell.screen.models.dango import Dango
from torchcell.train import train

STEP = 7
"""The fault comes here: in the third epoch of three steps each."""


@contextmanager
def losses_spoilt(spoil: Callable[[dict[str, Any]], dict[str, Any]], step: int = STEP) -> Iterator[None]:
    """Pass the model's loss terms through ``spoil`` in step number ``step`` of the process's training."""
    original, made = Dango.losses, [0]

    def losses(self: Any, batch: Any, prediction: Any) -> dict[str, Any]:
        made[0] += self.training
        terms = original(self, batch, prediction)
        return spoil(terms) if self.training and made[0] == step else terms

    with mock.patch.object(Dango, "losses", losses):
        yield


def not_a_number(folder: Path) -> Outcome:
    """One term of the loss becomes NaN in a step of the third epoch."""
    cfg = config(folder, "trainer.max_epochs=4")
    with losses_spoilt(lambda terms: terms | {"reconstruction": terms["reconstruction"] * float("nan")}):
        text = refusal(lambda: train(cfg))
    last = next(folder.rglob("last.ckpt"))
    state = torch.load(last, weights_only=True)
    checks = {
        f"the term is not named: {text}": "terms: reconstruction nan" in text,
        f"the step is not named: {text}": f"at step {STEP}" in text,
        "the last good checkpoint is not named": str(last) in text,
        "the checkpoint is of a spoilt epoch": state["epoch"] == 1,
        "it holds NaN": all(tensor.isfinite().all() for tensor in state["state_dict"].values()),
    }
    return judged(f"NaN in one loss term at step {STEP}", 1, "the epoch it came in", checks)


def no_gradient(folder: Path) -> Outcome:
    """The gradient of the second epoch's last step is NaN, though its loss is a number: no loss has met it yet."""
    cfg = config(folder, "trainer.max_epochs=4")
    with losses_spoilt(lambda terms: terms | {"embedding": terms["embedding"] + (terms["embedding"] * 0).sqrt()}, 6):
        text = refusal(lambda: train(cfg))
    state = torch.load(next(folder.rglob("last.ckpt")), weights_only=True)
    checks = {
        f"not told: {text}": "weights became NaN or infinite in epoch 1, by step 6" in text and "last.ckpt" in text,
        "the checkpoint is of a spoilt epoch": state["epoch"] == 0,
        "it holds NaN": all(tensor.isfinite().all() for tensor in state["state_dict"].values()),
    }
    return judged("NaN in the gradient of an epoch's last step", 1, "the epoch it came in", checks)


def no_memory(folder: Path, most: int = 4) -> Outcome:
    """CUDA's error, that of torch's CPU allocator, numpy's, and C++'s, each raised in a step."""
    sayings: list[BaseException] = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to "
                     "allocate 99999999 bytes. Error code 12 (Cannot allocate memory)"),
        MemoryError("Unable to allocate 74.5 GiB for an array with shape (100000, 100000) and data type float64"),
        MemoryError("std::bad_alloc"),
    ]  # fmt: skip
    told = []
    for number, saying in enumerate(sayings[:most]):
        with losses_spoilt(mock.Mock(side_effect=saying), step=4):
            told.append(refusal(lambda number=number: train(config(folder / str(number)))))
    wanted = ("data.batch_size=64 trainer.accumulate_grad_batches=2", "bf16-mixed", "last.ckpt")
    checks = {f"{said!r} is told as: {text}": all(word in text for word in wanted)
              for said, text in zip(sayings, told, strict=False)}  # fmt: skip
    return judged("out of memory, on the GPU and the CPU", len(told), "the epoch it came in", checks)


def disk_fills(folder: Path) -> Outcome:
    """No file can grow to the size of a checkpoint from the second epoch on: that of the first one stays."""
    cfg = config(folder, "trainer.max_epochs=3", "model.encoder.dim=32")
    with no_file_from_step(4, 100_000):
        text = refusal(lambda: train(cfg))
    epochs = [torch.load(path, weights_only=True)["epoch"] for path in folder.rglob("last.ckpt")]
    cfg.ckpt_path = "last"
    after = train(cfg)
    checks = {
        f"no clear message: {text}": "could not be written" in text and "Make room" in text,
        "the checkpoint before it is gone": epochs == [0],
        "it does not go on": after.scored is not None and after.scored.summary["epochs"] == 3,
    }
    return judged("the disk fills up while a run trains; then there is room again", 1, "the epoch it came in", checks)


@contextmanager
def no_file_from_step(step: int, size: int) -> Iterator[None]:
    with mock.patch.object(Dango, "losses", Dango.losses):  # put back at the end
        original, made, limit = Dango.losses, [0], no_file_above(size)

        def losses(self: Any, batch: Any, prediction: Any) -> dict[str, Any]:
            made[0] += self.training
            if made[0] == step and self.training:
                limit.__enter__()
            return original(self, batch, prediction)

        Dango.losses = losses  # type: ignore[method-assign]
        try:
            yield
        finally:
            limit.__exit__(None, None, None)


def wandb_gone(folder: Path) -> Outcome:
    """wandb fails from the fourth value on; and a run that starts where its server can't be reached."""
    import wandb

    calls, checks = [0], {}
    original = wandb.Run.log

    def log(self: Any, *arguments: Any, **known: Any) -> None:
        calls[0] += 1
        if calls[0] > 3:
            raise wandb.errors.CommError("Network error (ConnectionError), entering retry loop")
        original(self, *arguments, **known)

    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "online"}
    with mock.patch.object(wandb.Run, "log", log), mock.patch.dict(os.environ, {"WANDB_MODE": "offline"}):
        said = _warned(lambda: train(config(folder / "mid", "logger=wandb")), "wandb failed")
    checks["in mid-run: not one warning"] = len(said) == 1
    checks["in mid-run: wandb was never asked"] = calls[0] == 4
    with mock.patch.dict(os.environ, key):
        said = _warned(
            lambda: train(config(folder / "start", "logger=wandb", "trainer.max_epochs=1")), "does not answer"
        )
    checks["at the start: not one warning"] = len(said) == 1
    for name in ("mid", "start"):
        checks[f"{name}: no report"] = len(list((folder / name).rglob("report.html"))) == 1
        checks[f"{name}: history is not whole"] = len(list((folder / name).rglob("history.csv"))) == 1
    lost = "what wandb did not get; history, metrics, report are whole"
    return judged("wandb unreachable, in mid-run and from the start", 2, lost, checks)


def _warned(call: Callable[[], Any], text: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if text in str(one.message)]
