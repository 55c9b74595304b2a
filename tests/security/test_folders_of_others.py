"""A run folder that somebody sent touches nothing outside it: neither by its links nor by the paths that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY, composed

from torchcell.train import train
from torchcell.training.checkpoint import AtomicCheckpointIO


def going_on(ckpt: Path, folder: Path) -> None:
    train(composed("config", *TINY, "trainer.max_epochs=2", f"ckpt_path='{ckpt}'", f"paths.runs='{folder}'"))


def test_a_checkpoint_that_is_gone_on_from_deletes_nothing(finished, tmp_path, monkeypatch):
    """The trainer removes what a checkpoint calls the last one, a whole folder too, if the path has a protocol."""
    mine, evil = tmp_path / "mine", tmp_path / "evil.ckpt"
    mine.mkdir()
    (mine / "thesis").write_text("x")
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    states = [state for state in content["callbacks"].values() if "best_model_path" in state]
    for state in states:
        state["best_model_path"] = f"local://{mine}"
    assert len(states) == 2
    torch.save(content, evil)
    going_on(evil, tmp_path / "runs")
    assert (mine / "thesis").read_text() == "x"
    monkeypatch.delattr(AtomicCheckpointIO, "remove_checkpoint")
    going_on(evil, tmp_path / "again")
    assert not mine.exists(), "the payload is stale"
