"""The schedules at their start, middle, transition and end."""

from __future__ import annotations

import pytest
import torch

from torchcell.nn.losses import LinearUntilFlipped, LinearUntilUniform, PreThenPost


def weights(schedule, epochs=(0, 4, 5, 10, 19)):
    """(reconstruction, phenotype) at some of 20 epochs."""
    return [tuple(schedule(epoch, 20).values()) for epoch in epochs]


def test_pre_then_post_switches_at_the_transition():
    assert weights(PreThenPost(transition=0.25)) == [(1, 0), (1, 0), (0, 1), (0, 1), (0, 1)]


def test_linear_until_uniform_ends_with_equal_weights():
    expected = [(1.0, 0.0), (0.8, 0.2), (0.75, 0.25), (0.5, 0.5), (0.5, 0.5)]
    torch.testing.assert_close(weights(LinearUntilUniform(transition=0.5)), expected)


def test_linear_until_flipped_ends_with_the_later_term_alone():
    expected = [(1.0, 0.0), (0.6, 0.4), (0.5, 0.5), (0.0, 1.0), (0.0, 1.0)]
    torch.testing.assert_close(weights(LinearUntilFlipped(transition=0.5)), expected)


def test_terms_have_their_names_and_others_keep_their_weight():
    schedule = LinearUntilFlipped(transition=1.0, first="a", then="b", others={"c": 0.3})
    assert schedule(5, 10) == {"a": 0.5, "b": 0.5, "c": 0.3}


@pytest.mark.parametrize("transition", [0.0, 1.5])
def test_a_transition_outside_the_training_is_refused(transition):
    with pytest.raises(ValueError, match="transition"):
        PreThenPost(transition=transition)


def test_training_without_an_end_is_refused():
    with pytest.raises(ValueError, match="max_epochs"):
        LinearUntilUniform()(0, -1)
