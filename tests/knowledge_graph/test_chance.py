"""The watch on a loss at chance."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from torchcell.knowledge_graph.chance import NAME, ChanceLoss


def epochs(values: list[float | None], warmup_steps: int = 0) -> list[int]:
    """Epochs after which it warned, with ten steps an epoch."""
    watch, warned = ChanceLoss(limit=1.2, patience=2), []
    for epoch, value in enumerate(values):
        logged = {} if value is None else {NAME: torch.tensor(value)}
        trainer = SimpleNamespace(callback_metrics=logged, current_epoch=epoch, global_step=10 * (epoch + 1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.on_validation_end(trainer, SimpleNamespace(warmup_steps=warmup_steps))
        warned += [epoch] * len(caught)
    return warned


def test_a_loss_that_stays_at_two_ln_two_is_warned_of_once():
    """Elsewhere it stood there for 76 epochs, since remapped indices paired wrong nodes."""
    assert epochs([1.386] * 10) == [2]


def test_the_warm_up_is_waited_for():
    assert epochs([1.386] * 10, warmup_steps=35) == [5]


@pytest.mark.parametrize("values", [[1.386, 1.3, 1.1, 0.9, 0.8], [None] * 6, [1.386, 1.386]])
def test_a_falling_loss_and_models_without_the_measure_are_left_alone(values):
    assert epochs(values) == []
