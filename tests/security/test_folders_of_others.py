"""A run folder that somebody sent touches nothing outside it: neither by its links nor by the paths that it names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
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


def changed_json(run: Path, change: dict[str, object]) -> None:
    """Write other values over keys of metrics.json; the text as it is, since Python writes no long numbers."""
    text = json.dumps(json.loads((run / "metrics.json").read_text()) | change)
    (run / "metrics.json").write_text(text.replace('"LONG"', "9" * 5000).replace('"DEEP"', "[" * 10**5 + "]" * 10**5))


@pytest.mark.parametrize("text", ["LONG", "DEEP"])
def test_numbers_and_lists_without_end_are_no_traceback(text, verbs, finished, tmp_path, monkeypatch, capsys):
    """A number of 4,301 digits ended collect and reproduce with Python's own error."""
    run = sent(finished, tmp_path / "run")
    changed_json(run, {"seconds": text, "marker": text})
    monkeypatch.setattr(reproduce, "_train", lambda _, runs, *__: shutil.copytree(finished, runs / "x"))
    monkeypatch.setattr(reproduce, "code_change", lambda _: "")
    status = collect.main([str(run), "-o", str(tmp_path / "all.csv")])
    assert status == (0 if text == "LONG" else 1)
    assert "metrics.json can't be read" in capsys.readouterr().err or text == "LONG"
    assert reproduce.main([str(run), "-o", str(tmp_path / "again")]) == 1
    said = capsys.readouterr()
    assert ("NOT reproduced" in said.out) == (text == "LONG")
    verbs["predict"](run / "checkpoints" / "best.ckpt")
    with pytest.raises((ValueError, RecursionError)):
        json.loads((run / "metrics.json").read_text())  # the payload is stale else


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: (run / "metrics.json").write_text("[1]"), "holds a list and no mapping"),
        (lambda run: (run / "metrics.json").write_text('{"model": "x"}'), "has no 'split_hash'"),
        (lambda run: (run / "metrics.csv").write_text("system,metric\na,b\n"), "has no column 'part', 'value', 'low'"),
        (
            lambda run: (run / "metrics.csv").write_text("system,part,metric,value,low,high\na,test,b,one,,\n"),
            "the column 'value' holds what is no number: 'one'",
        ),
        (lambda run: changed_json(run, {"split": 1, "comparators": 2}), "is not as torchcell writes it"),
        (lambda run: (run / "config.yaml").write_text("name: x\n"), "has no 'seed', 'split.method', 'split.fold'"),
    ],
)
def test_a_sent_run_that_lacks_what_is_read_is_one_line(change, said, finished, tmp_path, capsys):
    run = sent(finished, tmp_path / "run")
    change(run)
    assert collect.main([str(run), "-o", str(tmp_path / "all.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("change", [{"git_commit": 3}, {"threads": [1]}, {"versions": "x"}, {"blas": 1}])
def test_an_environment_of_another_shape_is_one_line(change, finished, tmp_path, capsys):
    run = sent(finished, tmp_path / "run")
    about = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(about | change))
    assert reproduce.main([str(run), "-o", str(tmp_path / "again")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "environment.json" in line


def test_a_sent_run_turns_no_metric_of_other_runs(finished, tmp_path, capsys, monkeypatch):
    """It said that lower is better of a metric that is not registered here, and all runs were ranked so."""
    mine, theirs = sent(finished, tmp_path / "mine"), sent(finished, tmp_path / "theirs")
    for run in (mine, theirs):
        table = pd.read_csv(run / "metrics.csv")
        table["metric"] = table["metric"].str.replace("pearson", "planted")
        table.to_csv(run / "metrics.csv", index=False)
    changed_json(theirs, {"lower_is_better": ["planted", "spearman"]})
    assert collect.main([str(mine), str(theirs), "-o", str(tmp_path / "all.csv")]) == 1
    assert "do not agree whether lower is better of 'planted'" in capsys.readouterr().err
    before = collect.collect([mine])
    collect.collect([theirs])
    assert collect.collect([mine]).equals(before), "nothing is learned beyond the call"

    def rank(table: pd.DataFrame) -> list[float]:
        return table.loc[(table["level"] == "run") & (table["metric"] == "planted"), "rank"].tolist()

    assert rank(collect.collect([theirs])) != rank(before), "the payload is stale"
    monkeypatch.setattr(collect, "is_known", lambda _: True)
    collect.collect([mine, theirs])


def test_at_commit_runs_no_code_that_is_in_no_branch_of_ours(tmp_path, monkeypatch):
    """A commit that was fetched from anybody, such as a pull request that nobody has read, was checked out and run."""

    def git(*arguments: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path / "code"), *about, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "code" / "torchcell").mkdir(parents=True)
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "ours")
    ours = git("rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    (tmp_path / "code" / "torchcell" / "train.py").write_text("open('marker', 'w')")
    git("add", "-A")
    git("commit", "-q", "-m", "a stranger's")
    theirs = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/pr/1", theirs)
    git("checkout", "-q", "main")
    monkeypatch.setattr(reproduce, "__file__", str(tmp_path / "code" / "torchcell" / "reproduce.py"))
    with reproduce._code(ours) as root:
        assert not (root / "torchcell" / "train.py").exists()
    for name in (theirs, theirs[:9]):
        with pytest.raises(InputError, match=f"{theirs[:9]}.* is in no branch of yours.*git branch NAME"):
            reproduce._code(name).__enter__()
    with pytest.raises(InputError, match="git has no commit"):
        reproduce._code("0" * 40).__enter__()
    git("branch", "read", theirs)
    with reproduce._code(theirs) as root:
        assert (root / "torchcell" / "train.py").is_file(), "the payload is stale"
    assert git("worktree", "list").count("\n") == 0
