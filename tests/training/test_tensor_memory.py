"""What tensors hold at once is told exactly, whatever the process held before."""

from __future__ import annotations

import pytest
import torch

from torchcell.training.profile import tensor_megabytes

CPU = torch.device("cpu")


def test_the_most_that_is_held_at_once_counts_and_not_the_sum():
    def step() -> None:
        first = torch.ones(250_000)  # 1 MB
        second = first + 1
        del first
        torch.ones(250_000).add_(second)

    assert tensor_megabytes(step, CPU) == pytest.approx(2.0, rel=0.01)


def test_it_is_the_same_however_much_was_held_and_freed_before():
    """The resident set of a process that has been large tells nothing of what comes next."""
    for size in (1, 5_000_000):
        torch.ones(size)
        assert tensor_megabytes(lambda: torch.ones(250_000), CPU) == pytest.approx(1.0, rel=0.01)


def test_a_step_without_tensors_needs_none():
    assert tensor_megabytes(lambda: None, CPU) == 0


def test_what_is_kept_for_the_gradient_counts():
    x = torch.ones(250_000, requires_grad=True)

    def step() -> None:
        x.grad = None
        x.exp().exp().sum().backward()

    with torch.no_grad():
        bare = tensor_megabytes(lambda: x.exp().exp().sum(), CPU)
    assert bare == pytest.approx(2.0, rel=0.01)
    assert tensor_megabytes(step, CPU) > 1.4 * bare
