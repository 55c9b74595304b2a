"""What holds for all baselines of ``conf/baselines/screen.yaml``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.ensemble import HistGradientBoostingRegressor

from tests.screen.planted import assign_folds, mixed, ring
from torchcell.core.predictor import Predictor
from torchcell.screen.baselines_learned import Trees
from torchcell.screen.record import Screen

CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/screen.yaml")
NAMES = [str(name) for name in CONFIGS]
SETS_OF = {
    "query_pair_mean": (3,),
}


def fitted(name: str, train: Screen, val: Screen) -> Predictor:
    return instantiate(CONFIGS[name]).fit(train, val, ring(30))


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_that_of_the_config(name: str) -> None:
    assert instantiate(CONFIGS[name]).name == name


@pytest.mark.parametrize("name", NAMES)
def test_test_values_change_nothing(name: str) -> None:
    train, val, test = assign_folds(mixed())
    baseline = fitted(name, train, val)
    first = baseline.predict(test.blind())
    noise = np.random.default_rng(1).normal(size=test.phenotype.shape).astype(np.float32)
    again = fitted(name, train, val).predict(replace(test, phenotype=noise))
    assert first.dtype == np.float32
    assert first.shape == test.phenotype.shape
    assert first.tobytes() == again.tobytes() == baseline.predict(test).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_sets_of_one_two_and_three_genes_are_predicted(name: str) -> None:
    train, val, test = assign_folds(mixed())
    prediction = fitted(name, train, val).predict(test.blind())
    for size in (1, 2, 3):
        rows = prediction[test.sizes == size]
        assert len(rows)
        assert not np.isinf(rows).any()
        assert np.isnan(rows).all() if size not in SETS_OF.get(name, (1, 2, 3)) else np.isfinite(rows).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_members_and_samples_changes_nothing(name: str) -> None:
    train, val, test = assign_folds(mixed())
    order = np.random.default_rng(2).permutation(len(test))
    expected = fitted(name, train, val).predict(test.blind())
    turned = fitted(name, _reversed_members(train), _reversed_members(val)).predict(_reversed_members(test))
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        fitted(name, train, val).predict(test.subset(order)), expected[order], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("embedding_sum_mlp", "gradient_boosting")])
def test_the_order_of_training_samples_changes_nothing(name: str) -> None:
    train, val, test = assign_folds(mixed())
    order = np.random.default_rng(3).permutation(len(train))
    expected = fitted(name, train, val).predict(test)
    np.testing.assert_allclose(fitted(name, train.subset(order), val).predict(test), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_random_state_and_threads_of_the_caller_are_left_alone(name: str) -> None:
    train, val, test = assign_folds(mixed())
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
    train, val, test = assign_folds(replace(record, phenotype=labels, task="binary"))
    prediction = fitted(name, train, val).predict(test.blind())
    if name in ("additive_ridge", "embedding_sum_mlp", "gradient_boosting"):
        held = ~np.isnan(test.phenotype[:, 0])
        positive = test.phenotype[held, 0] == 1
        assert prediction[held, 0][positive].mean() > prediction[held, 0][~positive].mean() + 0.2
    assert not np.isinf(prediction).any()


@pytest.mark.parametrize("name", NAMES)
def test_genes_are_found_by_name(name: str) -> None:
    """A request lists the genes that it names; their positions are not those of the screen."""
    train, val, test = assign_folds(mixed())
    baseline = fitted(name, train, val)
    expected = baseline.predict(test.blind())
    turned = replace(test, genes=test.genes[::-1].copy(), gene=len(test.genes) - 1 - test.gene)
    assert baseline.predict(turned.blind()).tobytes() == expected.tobytes()
    request = replace(turned.blind(), phenotype=np.zeros((len(test), 0), np.float32), phenotype_names=())
    assert baseline.predict(request).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_of_a_gene_that_the_screen_lacks_it_says_nothing_or_what_other_genes_tell(name: str) -> None:
    train, val, test = assign_folds(mixed())
    baseline = fitted(name, train, val)
    alone = test.subset(np.flatnonzero(test.sizes == 2)[:3])
    names = np.append(test.genes, "NEW")
    gene = alone.gene.copy()
    gene[0] = len(test.genes)
    found = baseline.predict(replace(alone, genes=names, gene=gene).blind())
    assert found[1:].tobytes() == baseline.predict(alone.blind())[1:].tobytes()
    says = name in ("mean", "additive_ridge", "stack")
    assert np.isfinite(found[0]).all() == says


@pytest.mark.parametrize("name", ["network_neighbors", "gradient_boosting"])
def test_without_a_graph_network_baselines_say_nothing(name: str) -> None:
    train, val, test = assign_folds(mixed())
    assert np.isnan(instantiate(CONFIGS[name]).fit(train, val, None).predict(test)).all()


def _reversed_members(record: Screen) -> Screen:
    back = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in zip(record.ptr[:-1], record.ptr[1:], strict=True)])
    return replace(record, gene=record.gene[back], kind=record.kind[back])


def test_trees_as_arrays_say_what_the_regressor_says_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1]) + 0.1 * rng.normal(size=400)
    model = HistGradientBoostingRegressor(max_iter=12, min_samples_leaf=5, early_stopping=False).fit(x, y)
    for number, expected in enumerate(model.staged_predict(x), 1):
        assert Trees.of(model, number).predict(x).tobytes() == expected.tobytes()
