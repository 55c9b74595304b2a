"""Every model of the tree under DDP: all parameters take part, and processes change no score and lose no sample."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from small_runs import MODELS, composed

from tests.training.every_model import every_model
from torchcell.core.batch import BatchOrder
from torchcell.knowledge_graph.datamodule import RANKING
from torchcell.training.distributed.processes import run_in_processes
from torchcell.training.entry import conf_dir

NAMES = sorted({*MODELS, *(path.stem for path in (conf_dir() / "model").glob("*.yaml"))})
"""Every file of ``conf/model``, and what ``small_runs`` has beside them."""


def run(models: list[str], world: int) -> dict[str, dict[str, Any]]:
    cfg = composed("trainer=ddp_cpu", f"trainer.devices={world}")
    OmegaConf.set_struct(cfg, False)
    cfg.models = models
    found: dict[str, dict[str, Any]] = run_in_processes(every_model, cfg)
    return found


@pytest.fixture(scope="module")
def of_two() -> dict[str, dict[str, Any]]:
    """One pair of processes for all models: its start costs more than they do."""
    return run(NAMES, 2)


@pytest.fixture(scope="module")
def of_three() -> dict[str, dict[str, Any]]:
    return run(["dango"], 3)


def check(found: dict[str, Any]) -> None:
    assert found["samples"] == found["expected"] > 0
    assert found["difference"] < 1e-6, "the same weights predict otherwise"
    if not any(what.startswith(RANKING) for what in found["asked"]):
        assert found["n_metrics"] > 1
        assert found["metrics"] < 1e-6
    first, *others = found["weights"]
    assert all(other == first for other in others), f"the processes hold other weights or buffers: {found['weights']}"
    assert found["steps"] >= 2


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_a_model_and_score_it_as_one_does(of_two, name):
    """DDP itself raises at the second step where a parameter of the first had no gradient."""
    check(of_two[name])


@pytest.mark.long
def test_three_processes_score_a_part_that_they_cannot_share_evenly(of_three):
    assert of_three["dango"]["expected"] % 3, "the case must be the uneven one"
    check(of_three["dango"])


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 4, 7, 30])
def test_each_sample_is_dealt_once_but_for_the_padding(world, n):
    index = torch.arange(100, 100 + n)
    exact = [BatchOrder(index, True, 3, rank, world, pad=False).draw().tolist() for rank in range(world)]
    padded = [BatchOrder(index, True, 3, rank, world, pad=True).draw().tolist() for rank in range(world)]
    if n >= world:
        assert sorted(chain.from_iterable(exact)) == index.tolist()
    assert set(chain.from_iterable(padded)) == set(index.tolist())
    assert {len(part) for part in padded} == {-(-n // world)}, "all processes take equally many steps"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 4, 7, 30, 32])
@pytest.mark.parametrize("pad", [True, False])
def test_whole_batches_are_those_of_one_process(world, n, pad):
    index = torch.arange(100, 100 + n)
    orders = [BatchOrder(index, True, 3, rank, world, pad, stretch=4) for rank in range(world)]
    dealt = [[batch.tolist() for batch in order.draw().split(4)] for order in orders]
    of_one = [batch.tolist() for batch in BatchOrder(index, True, 3).draw().split(4)]
    assert [len(order) for order in orders] == [sum(map(len, batches)) for batches in dealt]
    every = [batch for batches in dealt for batch in batches]
    assert {*map(tuple, every)} == {*map(tuple, of_one)}
    if not pad and len(of_one) >= world:
        assert len(every) == len(of_one)
    if pad:
        assert {len(batches) for batches in dealt} == {-(-len(of_one) // world)}, "all take equally many steps"
