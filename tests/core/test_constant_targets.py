"""A target that does not vary in a part of the split is said before a run starts, and in its report."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.core.constant_targets import constant_notes

VARIES, FLAT = np.arange(4.0), np.full(4, 0.1)


@pytest.mark.parametrize(
    ("part", "said"),
    [("train", "nothing can be learned"), ("val", "epochs can't be compared"), ("test", "correlations")],
)
def test_each_part_is_named_with_what_it_means(part, said):
    (note,) = constant_notes({part: np.column_stack([FLAT, VARIES])}, ["a", "b"], labels=False, whole=False)
    assert f"in the {part} part 'a' has one value only" in note
    assert said in note


def test_labels_of_one_class_are_called_so_and_missing_values_do_not_count():
    values = np.array([[1.0], [np.nan], [1.0]])
    (note,) = constant_notes({"test": values}, ["y"], labels=True, whole=False)
    assert "'y' has one class only" in note
    assert constant_notes({"test": np.full((3, 1), np.nan)}, ["y"], labels=True, whole=False) == []
    assert constant_notes({"test": np.array([[0.0], [1.0]])}, ["y"], labels=True, whole=False) == []


def test_of_genes_only_a_part_in_which_none_varies_is_worth_a_note():
    """Hundreds of genes are expressed in no cell."""
    both = np.column_stack([FLAT, VARIES])
    assert constant_notes({"train": both}, ["a", "b"], labels=False, whole=True) == []
    assert len(constant_notes({"train": both[:, [0, 0]]}, ["a", "b"], labels=False, whole=True)) == 1
