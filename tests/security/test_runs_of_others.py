"""Runs, caches and records that others wrote or may write to, as the verbs and ``import torchcell as tc`` meet them."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, composed

import torchcell as tc
from torchcell import check_file, reproduce
from torchcell.api import outcome as api
from torchcell.api import records
from torchcell.collect import main as collect
from torchcell.data import main as data
from torchcell.io import cache, errors, file_facts, paths, plain_config, tables
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.file_facts import remembered
from torchcell.train import train
from torchcell.training import run_folder

LEAVES = "leads to files outside of it"


def sent(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb", ".lock"))
    return folder


# A folder of runs that somebody sent, in which one trains -----------------------------------------------


def planted(finished: Path, tmp_path: Path, link: str) -> tuple[list[str], Path]:
    """Overrides of the run of ``finished`` in a folder of runs where that run, or a part of it, leads to the user's."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("x")
    run = tmp_path / "runs" / finished.parent.name / finished.name
    place = run / link if link else run
    place.parent.mkdir(parents=True)
    place.symlink_to(mine)
    return [*TINY, f"paths.runs='{tmp_path}/runs'"], mine


@pytest.mark.parametrize(("link", "more"), [("", "overwrite=true"), ("checkpoints", "seed=0")])
def test_training_goes_into_no_folder_that_a_link_leads_to(link, more, finished, tmp_path, monkeypatch):
    """``overwrite=true`` deleted all that stood there."""
    overrides, mine = planted(finished, tmp_path, link)
    given = composed("config", *overrides, more)
    with pytest.raises(InputError, match=LEAVES):
        train(given)
    assert [one.name for one in mine.iterdir()] == ["thesis"]
    if more == "seed=0":
        with pytest.raises(InputError, match=LEAVES):
            tc.fit(*overrides, more)
        assert [one.name for one in mine.iterdir()] == ["thesis"]
    monkeypatch.setattr(run_folder, "refuse_links", lambda *_, **__: None)
    monkeypatch.setattr("torchcell.training.checkpoint.refuse_links", lambda *_, **__: None)
    train(given)
    assert {one.name for one in mine.iterdir()} - {"thesis"}, "the payload is stale"
    assert (mine / "thesis").exists() == (more != "overwrite=true")


# What tc.load shows of a run -----------------------------------------------------------------------------


def summary(run: Path, **change: object) -> None:
    text = json.dumps(json.loads((run / "metrics.json").read_text()) | change)
    (run / "metrics.json").write_text(text.replace('"LONG"', "9" * 5000).replace('"DEEP"', "[" * 10**5 + "]" * 10**5))


VERDICT = {"text": "better", "metric": "pearson"}


@pytest.mark.parametrize(
    "change",
    [
        {"split_hash": "DEEP"}, {"verdict": 1}, {"verdict": {}}, {"verdict": {**VERDICT, "metric": ["a"]}},
        {"verdict": {**VERDICT, "calibration": [1]}}, {"comparators": 5}, {"lower_is_better": [["a"]]},
    ],
)  # fmt: skip
def test_a_summary_of_another_shape_is_one_line(change, finished, tmp_path):
    run = tc.load(sent(finished, tmp_path / "run"))
    summary(run.path, **change)
    for show in (lambda: run.verdict, run._repr_html_, run.plot.forest):
        with pytest.raises(InputError, match="metrics.json"):
            show()


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"\xff\xfe\x00", b"", b"system,part,metric,value,low,high\nM,t,r,x,,\n"]
)
def test_tables_of_another_shape_are_one_line(content, finished, tmp_path):
    run = tc.load(sent(finished, tmp_path / "run"))
    for name in ("metrics", "comparisons", "history"):
        (run.path / f"{name}.csv").write_bytes(content)
    with pytest.raises(InputError, match="metrics.csv"):
        run._repr_html_()
    if not content.startswith((b"a", b"s")):
        for name in ("comparisons", "history"):
            with pytest.raises(InputError, match=f"{name}.csv can't be read"):
                getattr(run, name)


def test_a_verdict_of_others_is_one_line_and_plain_runs_show_as_before(finished, tmp_path):
    run = tc.load(sent(finished, tmp_path / "run"))
    assert "pearson" in run._repr_html_()
    summary(run.path, verdict={**run.summary["verdict"], "text": "no\nDango: better"}, seconds="LONG")
    assert tc.load(run.path).verdict.endswith(": no Dango: better")


def test_a_page_of_others_fetches_nothing(finished, tmp_path, monkeypatch):
    """An image of theirs told who read the page, and when; scripts did not run before either."""
    run = tc.load(sent(finished, tmp_path / "run"))
    assert (run.path / "report.html").read_text().count("<script") == 1, "ours, known to the page by its hash"
    (run.path / "report.html").write_bytes(b"<img src='http://example.org/x.png'>\xff")
    shown = html.unescape(run.report()._repr_html_())
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    assert f'srcdoc="{policy}' in shown, "it stands before all that is theirs"
    assert shown.index(policy) < shown.index("example.org")
    monkeypatch.setattr(api, "POLICY", "")
    assert policy not in html.unescape(run.report()._repr_html_())


def test_what_is_shown_of_a_checkpoint_anywhere_stands_beside_it(finished, tmp_path):
    """Only in a folder called ``checkpoints`` were links looked at."""
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "secret").write_text("hunter2")
    path = shutil.copy(finished / "checkpoints" / "best.ckpt", tmp_path / "run" / "weights")
    (tmp_path / "run" / "report.html").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out of the run's folder"):
        tc.load(path).report()
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "report.html").write_text("plain")
    assert "plain" in tc.load(path).report()._repr_html_()


# Caches and records --------------------------------------------------------------------------------------


def test_a_folder_of_the_cache_that_others_write_to_is_not_believed(tmp_path, monkeypatch, caplog):
    """A sticky folder keeps others from replacing what is there; what is not there yet they may put there first."""
    home, own = tmp_path / "home", tmp_path / "own"
    home.mkdir(mode=0o755)
    monkeypatch.setenv("TORCHCELL_DATA", str(home))
    monkeypatch.setattr(paths, "_user_cache", lambda: str(own))
    assert paths.own_home() == home
    home.chmod(0o1777)
    assert paths.own_home() == own
    monkeypatch.setenv("TORCHCELL_DATA", str(home / "new"))
    assert paths.own_home() == home / "new", "what is made here in a sticky folder is ours"
    home.chmod(0o755)
    monkeypatch.setenv("TORCHCELL_DATA", str(home))
    (home / "parsed").mkdir()
    write_arrays(home / "parsed" / "a.npz", x=np.zeros(1))
    path, made = home / "parsed" / "a.npz", {"x": np.ones(1)}

    def found() -> float:
        return kept(path, read_arrays, lambda: made, lambda file, one: write_arrays(file, **one))["x"].item()

    assert found() == 0
    (home / "parsed").chmod(0o777)
    assert found() == 1
    assert read_arrays(path)["x"].item() == 0, "nothing is written there either"
    monkeypatch.setattr(cache, "is_own", lambda _: True)
    assert found() == 0, "the payload is stale"


def test_a_fact_that_others_wrote_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(file_facts, "SETTLED_NS", -1)
    (tmp_path / "a").write_text("x")
    assert remembered(tmp_path / "a", "what", lambda: "right") == "right"
    (fact,) = (tmp_path / "home" / "facts").iterdir()
    fact.write_text("wrong")
    assert remembered(tmp_path / "a", "what", lambda: "right") == "wrong", "the payload is stale"
    fact.parent.chmod(0o777)
    assert remembered(tmp_path / "a", "what", lambda: "right") == "right"


def test_records_that_somebody_put_there_first_are_not_believed(tmp_path, monkeypatch):
    """``tc.fit(screen)`` took a file of that name for the user's, whatever it held."""
    from torchcell.api.start import compose

    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"genes": ["A|B", "A", "B"], "fitness": [0.4, 0.8, 0.9]})

    def read_back() -> list[float]:
        return pd.read_parquet(compose(tc.records.screen(table)).data.record.path)["fitness"].tolist()

    assert read_back() == [0.4, 0.8, 0.9]
    (path,) = Path("runs/records").glob("*.parquet")
    changed = path.stat().st_mtime_ns
    assert read_back() == [0.4, 0.8, 0.9]
    assert path.stat().st_mtime_ns == changed
    other = pa.Table.from_pandas(table.assign(fitness=9.0), preserve_index=False)
    pq.write_table(other, path)
    assert read_back() == [0.4, 0.8, 0.9]
    pq.write_table(other, path)
    monkeypatch.setattr(records, "_hash", lambda _: path.stem.rpartition("-")[2])
    assert read_back() == [9.0] * 3, "the payload is stale"


# Configs and words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: b"\xff\xfe", "is no text in UTF-8"),
        (lambda text: text.replace("seed: 0", "seed: 0x" + "f" * 9000).encode(), "numbers that are too long at"),
        (lambda text: text.encode() + b"#" * 2**21, "a config of .* bytes"),
        (lambda text: text.replace("devices: 1", "devices: 500").encode(), "starts more processes than the 32"),
    ],
)
def test_a_config_of_others_is_small_and_text(spoil, said, finished, tmp_path, capsys, monkeypatch):
    run = sent(finished, tmp_path / "run")
    (run / "config.yaml").write_bytes(spoil((run / "config.yaml").read_text()))
    monkeypatch.setattr(reproduce, "_train", lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=said):
        reproduce.reproduce(run, tmp_path / "again", any_code=True)
    if "processes" not in said:
        assert collect([str(run), "-o", str(tmp_path / "all.csv")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "config.yaml" in line
    monkeypatch.setattr(reproduce, "MOST_DEVICES", 1000)
    monkeypatch.setattr(plain_config, "LARGEST_NUMBER", 16**10000)
    if "processes" in said or "long" in said:
        with pytest.raises(pytest.fail.Exception, match="trained"):  # the payload is stale else
            reproduce.reproduce(run, tmp_path / "again", any_code=True)


def test_a_command_that_is_proposed_runs_nothing_else(tmp_path, capsys, monkeypatch):
    """A name of a file, or a label in it, ended the quotes of a command that is there to be typed."""
    monkeypatch.chdir(tmp_path)
    table = "genes,y\n" + "".join(f"G{i}|G{i + 1},0.{i}\n" for i in range(9))

    def marked(name: str) -> bool:
        Path(name).write_text(table)
        data(["check", name])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  use")]
        command = line.removeprefix("  use   ").replace("python", "true", 1)
        subprocess.run(["bash", "-c", command], check=False, capture_output=True)
        return Path("marker").exists()

    name = "a'; touch marker; '.csv"
    assert not marked(name)
    assert not marked("plain name.csv")
    monkeypatch.setattr(check_file.shlex, "quote", lambda text: f"'{text}'")
    assert marked(name), "the payload is stale"


def test_an_end_of_line_in_a_name_writes_no_line_of_its_own(tmp_path, capsys, monkeypatch):
    name = "fitness\nDango: better than all baselines"
    pd.DataFrame({"genes": ["A|B", "C|D", "E"], name: [0.1, 0.2, 0.3]}).to_parquet(tmp_path / "a.parquet")

    def lines() -> list[str]:
        assert data(["check", str(tmp_path / "a.parquet")]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("Dango")]

    assert not lines()
    assert list(tables.read_table(tmp_path / "a.parquet")) == ["genes", name.replace("\n", " ")]
    assert errors.one_line("a\nb\x1b") == r"a\nb\x1b"
    monkeypatch.setattr(tables.re, "sub", lambda _, __, text: text)
    assert not lines()
    monkeypatch.setattr("torchcell.data.one_line", errors.readable)
    assert lines(), "the payload is stale"


def test_umask_and_owner_are_those_of_this_process(tmp_path):
    assert paths.is_own(tmp_path / "none")
    (tmp_path / "a").mkdir(mode=0o700)
    assert paths.is_own(tmp_path / "a") == (os.getuid() == (tmp_path / "a").stat().st_uid)
