"""Comparators: shown and compared one by one, and never what the verdict counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError

Make = Callable[..., Results]


def beside(results: Results, **comparators: np.ndarray) -> Results:
    return replace(results, systems={**results.systems, **comparators}, comparators=tuple(comparators))


def test_a_comparator_is_no_baseline_and_stands_after_the_model(make_results: Make) -> None:
    results = replace(make_results(net=1.0, weak=0.2, mlp=0.5, twin=1.5, ceiling="twin"), comparators=("mlp",))
    assert results.baselines == ("weak",)
    assert results.ordered == ("net", "mlp", "weak", "twin")
    with pytest.raises(InputError, match="the comparator 'mpl' is not among the systems"):
        replace(results, comparators=("mpl",))


def test_the_verdict_is_the_same_beside_a_comparator_that_is_better_and_has_more_to_say(make_results: Make) -> None:
    results = make_results(net=0.5, weak=0.2)
    known = np.arange(400)[:, None] < 150  # less than half of what the comparator covers
    systems = {name: np.where(known, values, np.nan) for name, values in results.systems.items()}
    results = replace(results, systems=systems)
    alone, beaten = evaluate(results, n_boot=50), evaluate(beside(results, mlp=results.measured), n_boot=50)
    assert beaten.verdict.text == alone.verdict.text
    kept = beaten.table[beaten.table.system != "mlp"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone.table)
    assert alone.comparators == ()


def test_each_comparator_gets_a_line_of_its_own(make_results: Make) -> None:
    results = make_results(net=0.8, weak=0.2)
    copy, noise = results.systems["net"], np.random.default_rng(1).normal(size=(400, 1))
    found = evaluate(beside(results, poor=noise, perfect=results.measured, copy=copy), n_boot=200).comparators
    said = [one.text for one in found]
    assert said[0].startswith("against poor: better than poor by .")
    assert said[1].startswith("against perfect: worse than perfect by .")
    assert said[2] == "against copy: no significant difference from copy: .000 [.000, .000] pearson over 80 clusters"
    assert {row.baseline for row in found[0].per_metric} == {"poor"}


def test_a_comparator_without_a_value_is_said_to_have_none(make_results: Make) -> None:
    results = make_results(net=0.8, weak=0.2, flat=np.full((400, 1), 0.01))
    (found,) = evaluate(replace(results, comparators=("flat",)), n_boot=50).comparators
    assert found.text.startswith("against flat: better than flat by .")  # a constant has no skill
    told = found.summary()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["differences"]["pearson"]["outcome"] == "better"
    silent = make_results(net=0.8, weak=0.2, none=np.full((400, 1), np.nan))
    (found,) = evaluate(replace(silent, comparators=("none",)), n_boot=50).comparators
    assert found.text == "against none: no comparison: pearson is undefined"
    assert found.summary()["differences"]["pearson"]["difference"] is None
    assert {row.baseline for row in found.per_metric} == {"none"}


def test_the_comparison_of_an_unconverged_model_is_provisional(make_results: Make) -> None:
    results = replace(make_results(net=0.8, weak=0.2, mlp=0.5), comparators=("mlp",))
    (found,) = evaluate(results, n_boot=50, converged=False).comparators
    assert found.text.startswith("against mlp: not converged, so provisional: better than mlp by .")
