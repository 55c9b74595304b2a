"""What holds for all baselines of ``conf/baselines/screen.yaml``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.screen.planted import deal, mixed, ring
from torchcell.core.baseline import Baseline
from torchcell.io.errors import InputError
from torchcell.screen.record import Screen

CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/screen.yaml")
NAMES = [str(name) for name in CONFIGS]
SETS_OF = {
    "query_pair_mean": (3,),
}


def fitted(name: str, train: Screen, val: Screen) -> Baseline:
    return instantiate(CONFIGS[name]).fit(train, val, ring(30))


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_that_of_the_config(name: str) -> None:
    assert instantiate(CONFIGS[name]).name == name


@pytest.mark.parametrize("name", NAMES)
def test_test_values_change_nothing(name: str) -> None:
    train, val, test = deal(mixed())
    baseline = fitted(name, train, val)
    first = baseline.predict(test.blind())
    noise = np.random.default_rng(1).normal(size=test.phenotype.shape).astype(np.float32)
    again = fitted(name, train, val).predict(replace(test, phenotype=noise))
    assert first.dtype == np.float32
    assert first.shape == test.phenotype.shape
    assert first.tobytes() == again.tobytes() == baseline.predict(test).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_sets_of_one_two_and_three_genes_are_predicted(name: str) -> None:
    train, val, test = deal(mixed())
    prediction = fitted(name, train, val).predict(test.blind())
    for size in (1, 2, 3):
        rows = prediction[test.sizes == size]
        assert len(rows)
        assert not np.isinf(rows).any()
        assert np.isnan(rows).all() if size not in SETS_OF.get(name, (1, 2, 3)) else np.isfinite(rows).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_members_and_samples_changes_nothing(name: str) -> None:
    train, val, test = deal(mixed())
    order = np.random.default_rng(2).permutation(len(test))
    expected = fitted(name, train, val).predict(test.blind())
    turned = fitted(name, _reversed_members(train), _reversed_members(val)).predict(_reversed_members(test))
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        fitted(name, train, val).predict(test.subset(order)), expected[order], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("embedding_sum_mlp", "gradient_boosting")])
def test_the_order_of_training_samples_changes_nothing(name: str) -> None:
    train, val, test = deal(mixed())
    order = np.random.default_rng(3).permutation(len(train))
    expected = fitted(name, train, val).predict(test)
    np.testing.assert_allclose(fitted(name, train.subset(order), val).predict(test), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_random_state_and_threads_of_the_caller_are_left_alone(name: str) -> None:
    train, val, test = deal(mixed())
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    fitted(name, train, val).predict(test)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])  # noqa: NPY002
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", NAMES)
def test_a_binary_task_is_scored(name: str) -> None:
    record = mixed(n_outputs=2)
    labels = np.where(np.isnan(record.phenotype), np.nan, record.phenotype > 0).astype(np.float32)
    train, val, test = deal(replace(record, phenotype=labels, task="binary"))
    prediction = fitted(name, train, val).predict(test.blind())
    if name in ("additive_ridge", "embedding_sum_mlp", "gradient_boosting"):
        held = ~np.isnan(test.phenotype[:, 0])
        positive = test.phenotype[held, 0] == 1
        assert prediction[held, 0][positive].mean() > prediction[held, 0][~positive].mean() + 0.2
    assert not np.isinf(prediction).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mean", "query_pair_mean")])
def test_a_record_over_other_genes_is_refused(name: str) -> None:
    train, val, test = deal(mixed())
    baseline = fitted(name, train, val)
    with pytest.raises(InputError, match="gene list"):
        baseline.predict(replace(test, genes=test.genes[::-1]))


@pytest.mark.parametrize("name", ["network_neighbours", "gradient_boosting"])
def test_without_a_graph_network_baselines_say_nothing(name: str) -> None:
    train, val, test = deal(mixed())
    assert np.isnan(instantiate(CONFIGS[name]).fit(train, val, None).predict(test)).all()


def _reversed_members(record: Screen) -> Screen:
    back = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in zip(record.ptr[:-1], record.ptr[1:], strict=True)])
    return replace(record, gene=record.gene[back], kind=record.kind[back])
