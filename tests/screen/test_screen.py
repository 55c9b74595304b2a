"""A screen refuses what cannot be meant, names the samples, and slices without loss."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError


def test_subset_keeps_each_sample_with_its_own_genes(make_screen):
    screen = make_screen(["A|B", "C", "A|B|C", "B|C"], columns={"note": np.array(list("wxyz"))})
    part = screen.subset(np.array([2, 0])).validate()
    assert part.sets() == [("A", "B", "C"), ("A", "B")]
    assert part.sample_id.tolist() == ["s2", "s0"]
    assert part.columns["note"].tolist() == ["y", "w"]
    assert part.phenotype[:, 0].tolist() == [2, 0]


def test_subset_by_mask_equals_subset_by_position(make_screen):
    screen = make_screen(["A|B", "C", "A|B|C"])
    by_mask, by_position = screen.subset(np.array([True, False, True])), screen.subset(np.array([0, 2]))
    assert by_mask.sets() == by_position.sets()


@pytest.mark.parametrize(
    ("sets", "values", "message"),
    [
        (["A|B", ""], [1, 2], r"empty gene set: 's1'"),
        (["A|B", "C|C"], [1, 2], r"gene named twice: 's1'"),
        (["A|B", "B|A"], [1, 2], r"earlier row has too: 's1'"),
        (["A", "B"], [1, np.inf], r"infinite phenotype.*: 's1'"),
        (["A", "B"], [np.nan, 2], r"no phenotype at all: 's0'"),
    ],
)
def test_bad_rows_are_named(make_screen, sets, values, message):
    with pytest.raises(InputError, match=message):
        make_screen(sets, values).validate()


def test_a_single_missing_value_is_allowed(make_screen):
    values = np.array([[1, np.nan], [np.nan, 2]], dtype=np.float32)
    screen = make_screen(["A", "B"], phenotype=values, phenotype_names=("x", "y"))
    assert screen.validate() is screen


def test_a_sample_id_used_twice_is_named(make_screen):
    with pytest.raises(InputError, match="used twice: 'same'"):
        make_screen(["A", "B"], sample_id=np.array(["same", "same"])).validate()


def test_the_same_genes_at_other_levels_are_other_samples(make_screen):
    screen = make_screen(["A", "A"], level=np.array([0.1, 0.5], dtype=np.float32))
    assert screen.validate() is screen
    assert len(set(screen.duplicate_keys())) == 1


def test_duplicate_keys_do_not_depend_on_the_order_of_members(make_screen):
    keys = make_screen(["A|B", "B|A", "A|C"]).duplicate_keys()
    assert keys[0] == keys[1] != keys[2]


def test_blind_leaves_nothing_measured(make_screen):
    screen = make_screen(["A", "B"], truth=np.ones((2, 1)), replicates=np.ones((2, 3, 1)))
    blind = screen.blind()
    assert np.isnan(blind.phenotype).all()
    assert blind.truth is None
    assert blind.replicates is None
