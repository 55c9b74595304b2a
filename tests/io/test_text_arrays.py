"""Texts by array operations are what Python makes of them one by one."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from torchcell.io import text_arrays
from torchcell.io.text_arrays import arrow_texts, numbered, numpy_texts, sorted_lines_hash

TEXTS = {
    "uneven": ["YAL001C", "", "A", "B|C", "x y", "A"],
    "even": ["AB", "CD", "EF"],
    "letters beyond ASCII": ["é", "", "Sørensen", "a"],
    "a zero": ["a\0b", "", "ab"],
    "none": [],
    "empty": ["", ""],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=list(TEXTS))
def test_texts_go_to_numpy_and_back(texts, monkeypatch):
    monkeypatch.setattr(text_arrays, "ROWS", 2)
    for kind in (pa.string(), pa.large_string()):
        assert numpy_texts(pa.array(texts, kind)).tolist() == texts
    parts = pa.chunked_array([pa.array(["zz", *texts, "zz"]).slice(1, len(texts)), pa.array(texts, pa.string())])
    assert numpy_texts(parts).tolist() == texts + texts
    assert arrow_texts(np.array(texts, dtype=str)).to_pylist() == texts


def test_different_texts_are_numbered_by_their_first_place():
    texts = np.array(["B", "A", "", "B", "A10", "", "A1"])
    names, number = numbered(texts)
    assert names.tolist() == ["B", "A", "", "A10", "A1"]
    assert names[number].tolist() == texts.tolist()


def test_texts_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(text_arrays, "text_hashes", lambda texts: np.zeros(len(texts), dtype=np.uint64))
    names, number = numbered(np.array(["B", "A", "B"]))
    assert (names.tolist(), number.tolist()) == (["B", "A"], [0, 1, 0])


@pytest.mark.parametrize(
    "ids", [["b", "a", "a b", "ab", "a\x01"], [f"p{i:09d}" for i in range(50)], ["é", "z", "a"], [], ["a\0b", "ab"]]
)
def test_the_hash_of_lines_is_that_of_pythons_order(ids, monkeypatch):
    monkeypatch.setattr(text_arrays, "ROWS", 3)
    ids = np.random.default_rng(0).permutation(np.array(ids, dtype=str))
    parts = np.resize(["train", "val", "test", "unused"], len(ids))
    lines = sorted(f"{a}\t{b}" for a, b in zip(ids, parts, strict=True))
    assert sorted_lines_hash(ids, parts) == hashlib.sha256("\n".join(lines).encode()).hexdigest()
