"""Names and sentences that somebody sent stay text: on the terminal, in Markdown and on a page."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import jinja2
import pandas as pd
import pytest
from test_ways_in import FILES, ROOT, dotted, tree

from torchcell.collect import main as collect
from torchcell.data import main as data
from torchcell.io import errors
from torchcell.io.errors import InputError
from torchcell.report import table as report_table
from torchcell.training.lock import FolderLock, Holder

EVIL = "\x1b[2J\x1b]52;c;cm0gLXJm\x07 better\u202e\x9b8m\r"
"""Clears the screen, fills the clipboard, hides what follows."""


def sent(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb", ".lock"))
    return folder


def steering(said: str) -> set[str]:
    return set(said) & set(EVIL) - set(" better[]2J5;c8m0gLXf")


def test_a_sent_run_does_not_steer_the_terminal(verbs, finished, tmp_path, capsys, monkeypatch):
    run = sent(finished, tmp_path / "run")
    summary = json.loads((run / "metrics.json").read_text())
    summary["verdict"]["text"] = f"{EVIL}\nits run's verdict: ours"
    (run / "metrics.json").write_text(json.dumps(summary))
    table = pd.read_csv(run / "metrics.csv")
    table["system"] = table["system"].replace("mean", f"mean{EVIL.rstrip()}")
    table.to_csv(run / "metrics.csv", index=False)
    verbs["predict"](run / "checkpoints" / "best.ckpt")
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "verdict" in line]
    assert r"\x1b[2J" in line
    assert collect([str(run), "-o", str(tmp_path / "all.csv")]) == 0
    assert steering("".join([said, *capsys.readouterr()])) == set()
    monkeypatch.setattr(errors, "_UNREADABLE", re.compile("(?!)"))
    verbs["predict"](run / "checkpoints" / "best.ckpt")
    assert "\x1b" in steering(capsys.readouterr().out), "the payload is stale"


def test_an_error_does_not_steer_the_terminal():
    assert str(InputError(f"no gene {EVIL}")) == (r"no gene \x1b[2J\x1b]52;c;cm0gLXJm\x07 better\u202e\x9b8m\r")
    assert str(InputError("α ± 3 µM\n\tnext")) == "α ± 3 µM\n\tnext"


def test_all_tables_go_through_our_console():
    """Rich's own takes out five of the characters that steer, and no escape."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        if path.is_relative_to(ROOT / "torchcell") and path.name != "console.py"
        for node in tree(path)
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "rich.console"
            and "Console" in [n.name for n in node.names]
        )
        or (isinstance(node, ast.Call) and dotted(node.func) in ("rich.print", "rich.console.Console"))
    ]
    assert found == []


def test_all_that_is_printed_is_readable():
    """Names of samples and of files, errors of other processes, the holder in a lock that somebody wrote."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        if path.is_relative_to(ROOT / "torchcell")
        for node in tree(path)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
        for said in node.args
        if not (
            isinstance(said, ast.Constant)
            or (isinstance(said, ast.Call) and dotted(said.func) in ("readable", "one_line"))
        )
    ]
    assert found == []


def test_a_name_of_a_file_and_the_holder_of_a_lock_do_not_steer_the_terminal(tmp_path, capsys, monkeypatch):
    path = tmp_path / f"a{EVIL.replace('/', '')}.csv"
    path.write_text("genes,y\nA|B,0.5\nC|D,0.7\n")
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps(asdict(replace(Holder.here(), pid=2**22 + 1, host="h", since=EVIL, space="x"))))
    os.utime(lock, (0, 0))

    def said() -> str:
        data(["check", str(path)])
        FolderLock(lock.parent).release()
        return "".join(capsys.readouterr())

    before = lock.read_text()
    assert steering(said()) == set()
    lock.write_text(before)
    os.utime(lock, (0, 0))
    monkeypatch.setattr(errors, "_UNREADABLE", re.compile("(?!)"))
    assert "\x1b" in steering(said()), "the payload is stale"


def test_a_name_is_no_markdown(finished, tmp_path, monkeypatch):
    """An image in a table that is shown on a page would be fetched from any address."""
    run = sent(finished, tmp_path / "run")
    table = pd.read_csv(run / "metrics.csv")
    evil = "mean | x\n\n![x](http://a.b/c.png) <img src=http://a.b/d>"
    table["system"] = table["system"].replace("mean", evil)
    table.to_csv(run / "metrics.csv", index=False)
    assert collect([str(run), "-o", str(tmp_path / "all.md")]) == 0
    (line,) = [line for line in (tmp_path / "all.md").read_text().splitlines() if line.startswith("| mean")]
    assert line.startswith(r"| mean \| x ![x]\(http://a.b/c.png) \<img src=http://a.b/d> | ")
    monkeypatch.setattr(report_table, "_inline", str)
    assert collect([str(run), "-o", str(tmp_path / "all.md")]) == 0
    assert "\n\n![x](http://a.b/c.png) <img" in (tmp_path / "all.md").read_text(), "the payload is stale"


@pytest.mark.parametrize("where", ["name", "verdict"])
def test_a_name_is_no_html(where, tmp_path, monkeypatch):
    from torchcell.report.page import write_page
    from torchcell.report.sections import Section

    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    texts = {"name": "run", "verdict": "line"} | {where: evil}
    section = Section(evil, evil, table=pd.DataFrame({evil: [evil]}), caption=evil)
    write_page(tmp_path / "page.html", **texts, tone="open", sections=[section], facts={evil: evil})
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1, "ours"
    assert "alert(1)</script>" not in page
    assert "<img src=x" not in page
    plain = functools.partial(jinja2.Environment, autoescape=False)
    monkeypatch.setattr(jinja2, "Environment", lambda **known: plain(**{**known, "autoescape": False}))
    write_page(tmp_path / "page.html", **texts, tone="open", sections=[section], facts={evil: evil})
    assert "<script>alert" in (tmp_path / "page.html").read_text(), "the payload is stale"
