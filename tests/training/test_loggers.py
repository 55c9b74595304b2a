"""What is logged: one row an epoch, steps where they are asked for, and wandb that keeps the best score and its peace."""

from __future__ import annotations

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from recording_logger import Recording

from torchcell.io.errors import InputError
from torchcell.train import train
from torchcell.training.entry import conf_dir
from torchcell.training.loggers import History, chosen_logger, wandb_logger

TINY = (
    "data.record.n_genes=120", "data.record.n_sets=300", "data.record.n_queries=16", "data.record.n_arrays=60",
    "model.encoder.dim=16", "model.readout.heads=1", "trainer.max_epochs=2", "trainer.warmup_steps=2", "evaluation.n_boot=10",
    "baselines=none", "evaluation.memory_step_s=null",
)  # fmt: skip
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


def composed(folder, *overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*TINY, f"paths.runs={folder}", *overrides])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with a logger of the user's own, that takes figures."""
    chosen = ("logger._target_=recording_logger.Recording", "+logger.color=green", "logger.every_n_steps=1")
    trained = train(composed(tmp_path_factory.mktemp("runs"), *chosen))
    return trained, Recording.made[-1]


def test_a_logger_of_the_users_own_gets_epochs_steps_scores_and_figures(recorded):
    trained, logger = recorded
    assert logger.color == "green"
    assert logger.save_dir == str(trained.folder.path)
    assert logger.hyperparams["trainer"]["max_epochs"] == 2
    history = pd.read_csv(trained.folder.path / "history.csv")
    logged = [one["val/score"] for one, _ in logger.metrics if "val/score" in one]
    assert logged == pytest.approx(history["val/score"].tolist())
    assert any("step/loss" in one for one, _ in logger.metrics)
    table = trained.scored.evaluation.table
    (expected,) = table.query("system == 'Dango' and part == 'test' and metric == 'pearson'")["value"]
    assert logger.metrics[-1][0]["test/gene_interaction/pearson"] == expected
    drawn = {f"figures/{path.stem}" for path in trained.folder.path.glob("figures/*.png")}
    assert set(logger.images) == drawn != set()
    assert logger.finalized


def test_another_logger_changes_nothing_of_the_run(recorded, tmp_path):
    trained, _ = recorded
    plain = train(composed(tmp_path, "logger.every_n_steps=1"))
    assert plain.folder.path.name == trained.folder.path.name, "it is the same run"
    assert (plain.folder.path / "metrics.csv").read_text() == (trained.folder.path / "metrics.csv").read_text()


def test_a_logger_of_lightnings_own_writes_into_the_runs_folder(tmp_path):
    trained = train(composed(tmp_path, "logger._target_=lightning.pytorch.loggers.CSVLogger"))
    (written,) = trained.folder.path.glob("*/*/metrics.csv")
    columns = set(pd.read_csv(written).columns)
    assert {"val/score", "test/gene_interaction/pearson"} <= columns


def test_a_logger_that_fails_costs_a_warning_not_the_run(tmp_path):
    """As when the server of a tracker goes away."""
    chosen = ("logger._target_=recording_logger.Recording", "+logger.fails_at=2")
    with pytest.warns(UserWarning, match="Recording failed .no connection.; the run goes on without it") as warned:
        trained = train(composed(tmp_path, *chosen))
    assert sum("Recording failed" in str(one.message) for one in warned) == 1
    assert trained.scored is not None


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("logger._target_=lightning.pytorch.loggers.NoSuchLogger",), "can't be made"),
        (("logger._target_=no_such_package.Logger",), "can't be made"),
        (("logger._target_=recording_logger.Recording", "+logger.no_such_key=1"), "no_such_key"),
        (("logger._target_=pathlib.Path",), "is no Lightning logger"),
    ],
)
def test_a_logger_that_is_none_is_one_clear_line(tmp_path, chosen, said):
    with pytest.raises(InputError, match=said):
        chosen_logger(composed(tmp_path, *chosen), tmp_path, ENVIRONMENT)


def test_tensorboard_gets_scalars_and_figures(tmp_path):
    pytest.importorskip("tensorboard")
    trained = train(composed(tmp_path, "logger._target_=lightning.pytorch.loggers.TensorBoardLogger"))
    assert list(trained.folder.path.rglob("events.out.tfevents.*"))
