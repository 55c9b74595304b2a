"""Results refuse what can't be scored, and become the predictions table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError

Make = Callable[..., Results]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_id": np.array(["s0", "s1", "s1", "s3"])}, "sample ids used twice: 's1'"),
        ({"measured": np.zeros((3, 1))}, "measured has shape (3, 1), expected (4, 1)"),
        (
            {"systems": {"net": np.array([[0.0], [np.inf], [1], [-np.inf]])}},
            "'net' is infinite on 2 sample(s): 's1', 's3'",
        ),
        ({"model": "nett"}, "the model 'nett' is not among the systems; there are 'net'"),
        ({"ceiling": "twin"}, "the ceiling 'twin' is not among the systems"),
        ({"task": "grading"}, "unknown task 'grading'"),
        ({"set_size": np.ones(5)}, "set_size has shape (5,), expected (4,)"),
        ({"systems": {"net": np.zeros((4, 1)), "measured": np.zeros((4, 1))}}, "named like a column"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(make_results: Make, change: dict, message: str) -> None:
    results = make_results(n=4, n_clusters=4, net=0.5)
    with pytest.raises(InputError, match=re.escape(message)):
        replace(results, **change)


def test_no_samples_are_refused(make_results: Make) -> None:
    with pytest.raises(InputError, match="no samples"):
        make_results(n=0, net=0.5)


def test_the_frame_is_long_over_outputs_with_one_column_per_system() -> None:
    results = Results(
        np.array(["a", "b"]),
        np.array(["x", "y"]),
        ("up", "down"),
        np.array([[1.0, 2], [3, np.nan]]),
        {"ridge": np.array([[5.0, 6], [7, 8]]), "net": np.array([[9.0, 10], [11, 12]])},
        model="net",
    )
    frame = results.to_frame()
    assert list(frame.columns) == ["sample_id", "target", "measured", "net", "ridge"]
    assert frame.sample_id.tolist() == ["a", "a", "b", "b"]
    assert frame.target.tolist() == ["up", "down", "up", "down"]
    assert frame.net.tolist() == [9, 10, 11, 12]
    assert frame.measured.isna().tolist() == [False, False, False, True]
