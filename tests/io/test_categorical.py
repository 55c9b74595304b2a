"""Texts as numbers are the same texts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from torchcell.io.categorical import Categorical
from torchcell.io.fingerprint import fingerprint

TEXTS = ["b", "a", "", "b", "A+B"]


def test_every_form_gives_the_same_texts():
    for form in (TEXTS, np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS), pd.Categorical(TEXTS)):
        made = Categorical.of(form)
        assert made.tolist() == TEXTS
        assert made.names.tolist() == sorted(set(TEXTS))
    assert Categorical.of([]).tolist() == []
    assert fingerprint(Categorical.of(TEXTS)) == fingerprint(np.array(TEXTS))


def test_a_part_has_no_names_but_its_own():
    made = Categorical.of(TEXTS)
    assert made[1:3].names.tolist() == ["", "a"]
    assert made[np.array([True, False, False, True, False])].tolist() == ["b", "b"]
    assert made[0] == "b"
    assert len(made[[]]) == 0


def test_it_is_compared_as_texts_are():
    made, texts = Categorical.of(TEXTS), np.array(TEXTS)
    for other in ("b", "z", texts[::-1], Categorical.of(TEXTS[::-1])):
        np.testing.assert_array_equal(made == other, texts == np.asarray(other))
        np.testing.assert_array_equal(made != other, texts != np.asarray(other))
    np.testing.assert_array_equal(made.isin(["a", "z"]), np.isin(texts, ["a", "z"]))
    np.testing.assert_array_equal(np.where(texts == "a", "x", made), np.where(texts == "a", "x", texts))


def test_names_that_become_one_are_one():
    made = Categorical.coded(["B+A", "A+B", "unused"], np.array([0, 1, 0])).renamed(lambda name: "A+B")
    assert (made.names.tolist(), made.codes.tolist()) == (["A+B"], [0, 0, 0])
