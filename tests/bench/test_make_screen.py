"""The screen of the bench is the same each time, and has each pair once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
from make_screen import make_screen, write_screen

from torchcell.screen.table import read_screen


def test_a_made_screen_is_read_as_it_was_made_in_both_formats(tmp_path):
    read = [read_screen(write_screen(3_000, tmp_path / name)) for name in ("a.csv", "b.csv", "c.parquet")]
    assert len({screen.fingerprint() for screen in read}) == 1
    assert read[0].phenotype_names == ("fitness", "interaction")
    assert (read[0].sizes == 2).all()
    assert len(np.unique(read[0].duplicate_keys())) == 3_000


def test_of_few_genes_no_pair_is_drawn_twice_and_none_has_one_gene(monkeypatch):
    """The root that finds a pair's genes may be off by one at the ends of rows."""
    monkeypatch.setattr("make_screen.N_GENES", 90)
    table = make_screen(90 * 89 // 2)
    pairs = {frozenset(genes.split("|")) for genes in table["genes"].to_pylist()}
    assert len(pairs) == 90 * 89 // 2
    assert all(len(pair) == 2 for pair in pairs)
