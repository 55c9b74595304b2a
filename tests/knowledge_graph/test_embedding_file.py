"""``embed validate`` prints the table, and its exit status tells a bad file from a collapse."""

from __future__ import annotations

import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from torchcell.io.embeddings import EmbeddingTable
from torchcell.knowledge_graph.embed import SETS, main


@pytest.fixture
def files(tmp_path):
    """A healthy file and one whose node type b has collapsed, in ``tmp_path``."""
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    ids, node_type = np.array([f"n{i}" for i in range(60)]), np.repeat(["a", "b"], 30)
    EmbeddingTable(ids, ids, node_type, x).write(tmp_path / "good.h5ad")
    x[30:] = x[30] + 1e-3 * x[30:]
    EmbeddingTable(ids, ids, node_type, x).write(tmp_path / "bad.parquet")
    return tmp_path


def test_a_healthy_file_is_0_and_a_collapsed_one_3_only_if_asked(files, capsys):
    assert main([str(files / "good.h5ad"), "--fail-on-collapse"]) == 0
    assert "healthy: all nodes together and all 2 node types. all nodes: mean cosine" in capsys.readouterr().out
    assert main([str(files / "bad.parquet")]) == 0
    assert (
        "collapsed: 1 of 2 node types. b: mean cosine 1.00 within the node type is above 0.95"
        in capsys.readouterr().out
    )
    assert main([str(files / "bad.parquet"), "--fail-on-collapse"]) == 3


def test_columns_and_the_page_are_named_on_the_command_line(files, capsys):
    table = pd.read_parquet(files / "bad.parquet").rename(columns={"id": "node", "type": "sort"})
    table.to_csv(files / "e.csv", index=False)
    given = [str(files / "e.csv"), "--ids", "node", "--type", "sort", "--out", str(files / "page.html")]
    assert main([*given, "--fail-on-collapse"]) == 3
    assert "collapsed" in (files / "page.html").read_text()
    assert (files / "page_pca.png").stat().st_size > 0
    assert main([*given[:-1], str(files / "page.txt")]) == 1
    assert "the name must end in .html" in capsys.readouterr().err


def test_bounds_are_set_on_the_command_line_and_the_json_says_them(files, capsys):
    given = [str(files / "good.h5ad"), "--json", str(files / "e.json"), "--fail-on-collapse"]
    assert main([*given, "--healthy-cosine", "0.01", "--collapsed-within", "0.02"]) == 3
    assert "within the node type is above 0.02" in capsys.readouterr().out
    held = json.loads((files / "e.json").read_text())
    assert held["level"] == "collapsed"
    assert held["text"].startswith(
        "collapsed: 1 of 2 node types. b: mean cosine 0.04 within the node type is above 0.02"
    )
    assert list(held["types"]) == ["all nodes", "a", "b"]
    assert held["types"]["b"]["bounds"]["collapsed_within"] == 0.02
    assert held["types"]["b"]["centered_cosine"] == pytest.approx(-1 / 29, abs=0.01)
    assert main([*given[:1], "--healthy-cosine", "2"]) == 1
    assert "not between 0 and 1: healthy_cosine=2.0" in capsys.readouterr().err
    assert main([*given[:1], "--json", "e.txt"]) == 1
    assert "--json e.txt: the name must end in .json" in capsys.readouterr().err


def test_sets_that_embed_wrote_are_judged_after_centering_unless_told_otherwise(files, capsys):
    x = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32) + 10
    for rows in (SETS, "genes"):
        anndata.AnnData(X=x, uns={"rows": rows}).write_h5ad(files / f"{rows}.h5ad")
    assert main([str(files / f"{SETS}.h5ad"), "--fail-on-collapse"]) == 0
    shown = capsys.readouterr().out
    assert "cosines are judged after centering" in shown
    assert "healthy: all: mean cosine -0.0" in shown
    assert main([str(files / f"{SETS}.h5ad"), "--no-centered", "--fail-on-collapse"]) == 3
    assert main([str(files / "genes.h5ad"), "--fail-on-collapse"]) == 3
    assert "cosines are judged" not in capsys.readouterr().out


def test_a_file_without_types_is_judged_as_one_type(files, capsys):
    pd.read_parquet(files / "bad.parquet").drop(columns=["type", "name"]).to_csv(files / "e.csv", index=False)
    assert main([str(files / "e.csv")]) == 0
    assert "all" in capsys.readouterr().out


def test_a_bad_file_is_one_line_on_stderr(tmp_path, capsys):
    (tmp_path / "e.csv").write_text("id,x\na,1\nb,\n")
    assert main([str(tmp_path / "e.csv"), "--fail-on-collapse"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "'b'" in said
    assert said.count("\n") == 1


def test_the_verb_takes_plain_arguments(files):
    command = [sys.executable, "-m", "torchcell.embed", "validate", str(files / "bad.parquet"), "--fail-on-collapse"]
    assert subprocess.run(command, capture_output=True).returncode == 3
