"""The shares are those of the least squares within their bounds, over all batches and processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcell.nn.mixing import MOST, StackingWeights, least_cross_entropy, least_squares

GRID = np.linspace(0, MOST, 301)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 1))
def test_no_pair_within_the_bounds_is_better(seed, a, b, mixed):
    rng = np.random.default_rng(seed)
    read, told = rng.normal(size=(2, 30))
    told = mixed * read + (1 - mixed) * told
    left = a * read + b * told + 0.3 * rng.normal(size=30)
    found = least_squares(
        *(float(x @ y) for x, y in [(read, read), (read, told), (told, told), (read, left), (told, left)])
    )
    assert min(found) >= 0
    assert max(found) <= MOST
    best = min(((left - p * read - q * told) ** 2).sum() for p in GRID[::6] for q in GRID[::6])
    assert ((left - found[0] * read - found[1] * told) ** 2).sum() <= best * (1 + 1e-9) + 1e-9


def test_batches_add_up_and_values_that_were_not_measured_do_not_count():
    shares, draw = StackingWeights(), torch.Generator().manual_seed(0)
    read, told = torch.randn(2, 40, 6, generator=draw)
    left = 0.4 * read + 0.9 * told
    left[::3, 1] = torch.nan
    read[0, 1] = 1e6
    for at in torch.arange(40).split(7):
        shares.observe(read[at], told[at], left[at])
    found = shares.choose(lambda sums: 2 * sums)  # two processes that saw the same
    assert (float(found["network"]), float(found["prior"])) == pytest.approx((0.4, 0.9), abs=1e-4)
    torch.testing.assert_close(shares(read, told), 0.4 * read + 0.9 * told, rtol=1e-3, atol=1e-3)
    assert (shares.product_M == 0).all()


def test_of_nothing_nothing_is_taken_and_the_other_alone_is_weighed():
    shares, read = StackingWeights(), torch.ones(3, 2)
    assert torch.equal(shares(read, 2 * read), 3 * read)  # nothing was seen yet
    shares.observe(read, torch.zeros(3, 2), 0.5 * read)
    assert [float(value) for value in shares.choose(lambda sums: sums).values()] == [0.5, 0]
    shares.observe(read, read, 0.5 * read)  # alike: any split of them will do
    shares.choose(lambda sums: sums)
    torch.testing.assert_close(shares(read, read), 0.5 * read)


def test_weights_of_log_odds_have_the_least_cross_entropy_also_over_processes_and_in_the_square():
    draw = torch.Generator().manual_seed(0)
    network, prior = (3 * torch.randn(2000, generator=draw, dtype=torch.float64) for _ in range(2))
    for true in ((0.7, 1.2), (0.2, 3.0), (-1.0, 0.5)):
        odds = true[0] * network + true[1] * prior
        target = (torch.rand(2000, generator=draw, dtype=torch.float64) < odds.sigmoid()).double()
        target[:5] = 1 - target[:5]

        def loss(a, b, target=target):
            return float(torch.nn.functional.binary_cross_entropy_with_logits(a * network + b * prior, target))

        found = least_cross_entropy(network, prior, target, lambda sums: sums)
        assert all(0 <= one <= MOST for one in found)
        near = [
            (min(max(found[0] + i, 0), MOST), min(max(found[1] + j, 0), MOST))
            for i in (-0.02, 0, 0.02)
            for j in (-0.02, 0, 0.02)
        ]
        assert loss(*found) <= min(loss(*one) for one in near) + 1e-7
        weights = StackingWeights(labels=True)
        for at in torch.arange(2000).split(300):
            weights.observe(network[at, None].float(), prior[at, None].float(), target[at, None].float())
        chosen = weights.choose(lambda sums: sums)
        assert float(chosen["network"]) == pytest.approx(found[0], abs=1e-4)
    assert least_cross_entropy(0 * network, prior, target, lambda sums: sums) == (1.0, 1.0)


def test_lists_count_as_labels_do():
    draw = torch.Generator().manual_seed(0)
    parts = torch.randn(2, 900, 6, generator=draw, dtype=torch.float64)
    part = torch.ones(900, 6, dtype=torch.bool)
    part[::3, 4:] = False
    odds = (0.4 * parts[0] + 1.1 * parts[1]).masked_fill(~part, -torch.inf)
    first = torch.multinomial(odds.softmax(1), 1, generator=draw)
    at = torch.arange(900)
    swapped = parts.clone()  # the chosen one comes first
    swapped[:, at, 0], swapped[:, at, first[:, 0]] = parts[:, at, first[:, 0]], parts[:, :, 0]
    nothing = torch.zeros(0, dtype=torch.float64)
    a, b = least_cross_entropy(nothing, nothing, nothing, lambda sums: sums, [(swapped, part)])
    assert (a, b) == (pytest.approx(0.4, abs=0.12), pytest.approx(1.1, abs=0.12))

    def loss(a, b):
        odds = (a * swapped[0] + b * swapped[1]).masked_fill(~part, -torch.inf)
        return float((odds.logsumexp(1) - odds[:, 0]).sum())

    assert loss(a, b) <= min(loss(a + i, b + j) for i in (-0.02, 0, 0.02) for j in (-0.02, 0, 0.02)) + 1e-6
