"""Kinds become rows of the trained ones, whatever their order; in evaluation an untrained kind is named."""

from __future__ import annotations

import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.screen.models.common import KindRows
from torchcell.screen.record import KINDS


def numbers(*kinds: str) -> torch.Tensor:
    return torch.tensor([KINDS.index(kind) for kind in kinds])


@pytest.mark.parametrize("kinds", [KINDS, tuple(reversed(KINDS)), ("overexpressed", "absent")], ids="|".join)
def test_a_row_is_the_kinds_place_among_the_trained_ones(kinds):
    asked = [kinds[i] for i in (1, 0, 1, len(kinds) - 1)]
    rows = KindRows(kinds).eval()(numbers(*asked))
    assert [kinds[row] for row in rows.tolist()] == asked
    assert rows.dtype == torch.int64


def test_in_evaluation_kinds_that_were_not_trained_are_named_once_beside_the_known_ones():
    rows = KindRows(("absent", "overexpressed")).eval()
    with pytest.raises(InputError, match=r"not in training: 'knockdown'; the model knows 'absent', 'overexpressed'"):
        rows(numbers("absent", "knockdown", "knockdown"))
    assert rows(numbers("overexpressed", "absent")).tolist() == [1, 0]


def test_training_does_not_look_so_that_a_gpu_need_not_wait():
    assert KindRows(("absent",)).train()(numbers("absent", "knockdown")).tolist() == [0, -1]


def test_a_batch_without_members_has_no_rows():
    assert KindRows(("absent",)).eval()(torch.empty(0, dtype=torch.int64)).shape == (0,)


def test_a_name_that_is_no_kind_is_refused():
    with pytest.raises(InputError, match="'abscent'; choose from"):
        KindRows(("abscent",))


def test_it_adds_nothing_to_a_checkpoint():
    assert KindRows(("absent",)).state_dict() == {}
