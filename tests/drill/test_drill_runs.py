"""Cases of ``make drill`` that train, at small size; and kills at the moments that a random one rarely meets."""

from __future__ import annotations

from pathlib import Path

import kills
import pytest
import training
from small import config

from torchcell.train import train
from torchcell.training import score as scoring
from torchcell.training.checkpoint import AtomicCheckpointIO


def test_nan_is_told_by_term_step_and_last_good_checkpoint(tmp_path):
    assert training.not_a_number(tmp_path).wrong == ()


def test_weights_that_the_last_step_of_an_epoch_has_spoilt_are_not_saved(tmp_path):
    assert training.no_gradient(tmp_path).wrong == ()


def test_no_memory_is_told_with_what_needs_less(tmp_path):
    assert training.no_memory(tmp_path, most=2).wrong == ()


def test_a_disk_that_fills_costs_the_epoch_it_came_in(tmp_path):
    assert training.disk_fills(tmp_path).wrong == ()


def test_a_run_ends_with_its_report_without_wandb(tmp_path):
    assert training.wandb_gone(tmp_path).wrong == ()


OVERRIDES = (
    "trainer.max_epochs=6",
    "trainer.early_stopping.patience=2",
    "trainer.early_stopping.min_delta=10.0",
    "++model.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max, "
    "factor: 0.1, patience: 0, threshold: 10.0, threshold_mode: abs}",
)
"""Stops after three epochs; each but the first makes the rate a tenth."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(config(folder, *OVERRIDES))
    return kills.read(folder)


class Killed(BaseException):
    """No handler catches it, as none catches kill -9."""


def after_saving(patch: pytest.MonkeyPatch) -> None:
    """Killed when last.ckpt of the second epoch is written, and nothing else yet.

    A resumed run forgot the plateau's count of that epoch, and its row of the history had no training loss.
    """
    save = AtomicCheckpointIO.save_checkpoint

    def killing(self, checkpoint, path, **known) -> None:
        save(self, checkpoint, path, **known)
        if Path(path).name == "last.ckpt" and checkpoint["epoch"] == 1:
            raise Killed

    patch.setattr(AtomicCheckpointIO, "save_checkpoint", killing)


def between_best_and_last(patch: pytest.MonkeyPatch) -> None:
    """Killed with a best.ckpt that is newer than last.ckpt."""
    save = AtomicCheckpointIO.save_checkpoint

    def killing(self, checkpoint, path, **known) -> None:
        save(self, checkpoint, path, **known)
        if Path(path).name == "best.ckpt" and checkpoint["epoch"] == 1:
            raise Killed

    patch.setattr(AtomicCheckpointIO, "save_checkpoint", killing)


def while_it_is_scored(patch: pytest.MonkeyPatch) -> None:
    """Killed after early stopping. A resumed run forgot that it had stopped, and trained for another epoch."""

    def killing(*_, **__) -> None:
        raise Killed

    patch.setattr(scoring, "score", killing)


@pytest.mark.parametrize("moment", [after_saving, between_best_and_last, while_it_is_scored])
def test_a_run_killed_at_a_bad_moment_ends_as_one_left_alone(whole, tmp_path, monkeypatch, moment):
    cfg = config(tmp_path, *OVERRIDES)
    with monkeypatch.context() as patch:
        moment(patch)
        with pytest.raises(Killed):
            train(cfg)
    (half,) = (path.with_name(".last.0123abcd.part.ckpt") for path in tmp_path.rglob("last.ckpt"))
    half.write_bytes(b"half")  # what a write that was killed leaves
    cfg.ckpt_path = "auto"
    train(cfg)
    assert kills.differences(whole, kills.read(tmp_path)) == []
    assert whole["history"]["epoch"].tolist() == [0, 1, 2]
    assert not half.exists()
