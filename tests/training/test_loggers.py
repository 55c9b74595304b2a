"""What is logged: one row an epoch, steps where they are asked for, and wandb that keeps the best score and its peace."""

from __future__ import annotations

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from torchcell.training.entry import conf_dir
from torchcell.training.loggers import History, wandb_logger

ENVIRONMENT = {"host": "here", "config_hash": "0123456789", "wandb_id": "abc123"}


def rows(path):
    return pd.read_csv(path).to_dict("records")


@pytest.fixture
def cfg():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", ["logger=wandb"])


def summary_of(logger, scores):
    for epoch, score in enumerate(scores):
        logger.log_metrics({"val/score": score, "val/loss": 1.0 - score, "epoch": epoch}, epoch)
    found = dict(logger.experiment.summary)
    logger.experiment.finish()
    return found


def test_wandbs_summary_holds_the_best_score_not_the_last(cfg, tmp_path):
    found = summary_of(wandb_logger(cfg, tmp_path, ENVIRONMENT), [0.1, 0.5, 0.3])
    assert found["val/score"] == 0.5
    assert found["val/loss"] == 0.7, "of all else the last"


def test_a_run_that_goes_on_keeps_the_best_of_its_earlier_part(cfg, tmp_path):
    assert summary_of(wandb_logger(cfg, tmp_path, ENVIRONMENT, 0.5), [0.2, 0.4])["val/score"] == 0.5


def test_an_undefined_score_is_no_best(cfg, tmp_path):
    assert summary_of(wandb_logger(cfg, tmp_path, ENVIRONMENT), [0.2, float("nan")])["val/score"] == 0.2


def test_wandbs_own_talk_is_one_line(cfg, tmp_path, monkeypatch, capfd):
    """It was some twenty: how to go online, a sketch of each curve, the whole summary, where its logs are."""
    monkeypatch.delenv("WANDB_SILENT")
    summary_of(wandb_logger(cfg, tmp_path, ENVIRONMENT), [0.1, 0.5])
    out, err = capfd.readouterr()
    (line,) = (out + err).splitlines()
    assert line == f"wandb   offline; to send it: wandb sync {tmp_path}/wandb/offline-run-*abc123"
    assert len(list(tmp_path.glob("wandb/offline-run-*abc123"))) == 1


def test_the_history_has_one_row_an_epoch_and_steps_of_their_own(tmp_path):
    history = History(tmp_path / "history.csv")
    for epoch in range(2):
        for step in (2 * epoch + 1, 2 * epoch + 2):
            history.log_metrics({"step/epoch": epoch, "step/loss": 0.5 * step, "step/lr": 0.1}, step)
        history.log_metrics({"epoch": epoch, "val/score": 0.1 * epoch}, 2 * epoch + 1)
    history.log_metrics({"lr-AdamW": 0.1}, 7)  # of neither
    history.save()
    assert rows(tmp_path / "history.csv") == [{"epoch": 0, "val/score": 0.0}, {"epoch": 1, "val/score": 0.1}]
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == [1, 2, 3, 4]
    assert rows(tmp_path / "steps.csv")[2] == {"step": 3, "epoch": 1, "loss": 1.5, "lr": 0.1}
    assert history.best("val/score") == 0.1
    assert history.best("val/none") == -float("inf")


def test_a_run_that_goes_on_forgets_the_steps_that_it_makes_again(tmp_path):
    history = History(tmp_path / "history.csv")
    for step in range(4):
        history.log_metrics({"step/epoch": step // 2, "step/loss": 0.5}, step)
    history.save()
    again = History(tmp_path / "history.csv")
    again.forget_from(1)
    again.log_metrics({"step/epoch": 1, "step/loss": 0.25}, 2)
    again.save()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path / "steps.csv")] == [(0, 0.5), (1, 0.5), (2, 0.25)]


def test_without_the_option_there_is_no_table_of_steps(tmp_path):
    history = History(tmp_path / "history.csv")
    history.log_metrics({"epoch": 0, "val/score": 0.5}, 3)
    history.save()
    assert not (tmp_path / "steps.csv").exists()
