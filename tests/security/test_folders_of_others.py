"""A run folder that somebody sent touches nothing outside it: neither by its links nor by the paths that it names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, composed

from torchcell import collect, evaluate, reproduce
from torchcell.io.errors import InputError
from torchcell.io.tables import read_table
from torchcell.train import train
from torchcell.training import checkpoint
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


LEAVES = "leads to files outside of it"


def sent(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb", ".lock"))
    return folder


@pytest.mark.parametrize("link", ["figures", "baselines", "checkpoints/best-evaluated"])
def test_scores_go_into_no_folder_that_a_sent_run_links_to(link, verbs, finished, tmp_path, monkeypatch):
    run, mine = sent(finished, tmp_path / "run"), tmp_path / "mine"
    mine.mkdir()
    shutil.rmtree(run / link, ignore_errors=True)
    (run / link).symlink_to(mine)
    if "evaluated" in link:
        (run / "config.yaml").unlink()
    given = composed("evaluate", f"ckpt='{run}/checkpoints/best.ckpt'")
    with pytest.raises(InputError, match=f"{LEAVES}.*{link}"):
        evaluate.evaluate(given)
    assert not list(mine.iterdir())
    monkeypatch.setattr(checkpoint, "refuse_links", lambda *_: None)
    if "evaluated" in link:
        with pytest.raises(InputError, match=LEAVES):
            evaluate.evaluate(given)
    monkeypatch.setattr("torchcell.io.paths.refuse_links", lambda *_, **__: None)
    evaluate.evaluate(given)
    assert list(mine.iterdir()), "the payload is stale"


def test_no_file_that_a_sent_run_links_to_is_read_into_a_table(finished, tmp_path, monkeypatch):
    run, secret = sent(finished, tmp_path / "run"), tmp_path / "secret.csv"
    secret.write_text((run / "metrics.csv").read_text().replace("Dango", "hunter2"))
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").symlink_to(secret)
    for read in (lambda: collect.collect([run]), lambda: reproduce.reproduce(run, tmp_path / "again")):
        with pytest.raises(InputError, match=f"{LEAVES}.*metrics.csv"):
            read()
    monkeypatch.setattr(collect, "refuse_links", lambda *_: None)
    assert "hunter2" in set(collect.collect([run])["system"]), "the payload is stale"


def test_a_run_may_be_reached_by_a_link_and_hold_links_to_itself(finished, tmp_path):
    run = sent(finished, tmp_path / "run")
    (run / "checkpoints" / "mine.ckpt").symlink_to("best.ckpt")
    (tmp_path / "latest").symlink_to(run)
    assert checkpoint.load(tmp_path / "latest" / "checkpoints" / "mine.ckpt").epoch == 0


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_has_no_end_is_not_read(make, finished, tmp_path):
    make(tmp_path / "table.csv")
    with pytest.raises(InputError, match="a device or a pipe"):
        read_table(tmp_path / "table.csv")
    run = sent(finished, tmp_path / "run")
    (run / "metrics.csv").unlink()
    make(run / "metrics.csv")
    with pytest.raises(InputError, match=LEAVES):
        collect.collect([run])
