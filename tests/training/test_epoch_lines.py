"""Progress in a log file: seldom enough not to fill it, often enough that nobody waits without a line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from torchcell.io.progress import Pace, duration
from torchcell.training import callbacks as progress
from torchcell.training.callbacks import Progress


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def lines(total, seconds_each, pieces):
    """What a work of ``pieces`` says, with the second at which it does."""
    clock = Clock()
    pace = Pace("work", total, clock=clock)
    found = []
    for done in range(1, pieces + 1):
        clock.now += seconds_each
        line = pace.line(done)
        if line is not None:
            found.append((clock.now - 1000, line))
    return found


def test_short_work_says_nothing():
    assert lines(100, 0.25, 100) == []


def test_the_first_line_is_an_estimate_and_later_ones_come_each_tenth_of_long_work():
    """An epoch of 20 minutes: a line of its length after 10 s, then one a tenth, not one each 30 s."""
    found = lines(1200, 1.0, 1200)
    assert found[0] == (10, "work: takes about 20 min")
    assert [second for second, _ in found[1:4]] == [130, 250, 370]
    assert found[1][1] == "work: 11 %, about 18 min left"
    assert len(found) == 10


def test_lines_of_shorter_work_come_each_half_minute_not_each_tenth():
    """Of two minutes a tenth takes 12 s, which is more often than a log needs."""
    assert [second for second, _ in lines(120, 1.0, 120)] == [10, 40, 70, 100]


def test_a_first_piece_that_takes_minutes_is_told_when_it_ends():
    assert lines(3, 240.0, 3)[0] == (240, "work: takes about 12 min")


def test_work_of_unknown_length_counts_what_is_done():
    assert lines(None, 10.0, 7) == [(30, "work: 3 done in 30 s"), (60, "work: 6 done in 60 s")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5_900, "98 min"), (7_500, "2 h 5 min")]
)
def test_durations_are_told_in_words(seconds, text):
    assert duration(seconds) == text


class Model:
    """What the callback asks of a model."""

    def running_terms(self):
        return {"loss": 0.5, "loss/phenotype": 0.25}


@pytest.fixture
def watched(monkeypatch):
    """The callback in a log file, its clock and a trainer of four epochs of 100 batches."""
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr(Pace.__init__, "__defaults__", (30.0, 10.0, clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    trainer = SimpleNamespace(
        max_epochs=4,
        current_epoch=0,
        num_training_batches=100,
        num_val_batches=[10],
        num_test_batches=[10],
        checkpoint_callbacks=[],
        callback_metrics={},
        progress_bar_metrics={},
        is_global_zero=True,
        loggers=[],
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
    )
    callback = Progress()
    callback._trainer = trainer
    return callback, clock, trainer


def epoch(watched, number, score, seconds_a_batch):
    """One epoch with its validation score."""
    callback, clock, trainer = watched
    trainer.current_epoch = number
    callback.on_train_epoch_start(trainer, Model())
    for batch in range(100):
        clock.now += seconds_a_batch
        callback.on_train_batch_end(trainer, Model(), None, None, batch)
    trainer.callback_metrics = trainer.progress_bar_metrics = {"val/score": torch.tensor(score)}
    callback.on_train_epoch_end(trainer, Model())


def test_each_epoch_says_which_of_how_many_what_is_best_and_the_time_left(watched, capsys):
    callback, _, trainer = watched
    callback.on_train_start(trainer, Model())
    for number, score in enumerate([0.1, 0.3, 0.2]):
        epoch(watched, number, score, 0.05)
    said = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in said] == ["epoch 1 of 4", "epoch 2 of 4", "epoch 3 of 4"]
    assert ["(best)" in line for line in said] == [True, True, False]
    assert "val/score 0.3 (best)" in said[1]
    assert "loss/phenotype 0.25" in said[1]
    assert said[0].endswith("at most 15 s left")
    assert said[2].endswith("at most 5 s left")


def test_a_first_epoch_of_minutes_says_so_after_seconds(watched, capsys):
    """A user waited 15 minutes without a line."""
    callback, _, trainer = watched
    callback.on_train_start(trainer, Model())
    epoch(watched, 0, 0.1, 2.4)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "epoch 1 of 4: takes about 4 min  loss 0.5  loss/phenotype 0.25"
    assert said[1].startswith("epoch 1 of 4: 18 %, about 3 min left")
    assert len(said) < 12
    assert said[-1].endswith("at most 12 min left")


def test_a_run_that_goes_on_knows_its_best_score(watched, capsys):
    from lightning.pytorch.callbacks import ModelCheckpoint

    callback, _, trainer = watched
    saved = ModelCheckpoint(monitor="val/score", mode="max")
    saved.best_model_score = torch.tensor(0.5)
    trainer.checkpoint_callbacks = [saved]
    callback.on_train_start(trainer, Model())
    epoch(watched, 2, 0.4, 0.01)
    epoch(watched, 3, 0.6, 0.01)
    said = capsys.readouterr().err.splitlines()
    assert "(best)" not in said[0]
    assert "val/score 0.6 (best)" in said[1]


def test_other_processes_say_nothing(watched, capsys):
    callback, _, trainer = watched
    trainer.is_global_zero = False
    callback.on_train_start(trainer, Model())
    epoch(watched, 0, 0.1, 2.4)
    assert capsys.readouterr().err == ""


def test_a_long_pass_without_training_says_how_far_it_is(watched, capsys):
    callback, clock, trainer = watched
    callback.on_train_start(trainer, Model())
    callback.on_validation_start(trainer, Model())
    for batch in range(10):
        clock.now += 20
        callback.on_validation_batch_end(trainer, Model(), None, None, batch)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "epoch 1 of 4, validation: takes about 3 min"
    assert said[1] == "epoch 1 of 4, validation: 30 %, about 2 min left"
