"""The energy of a relation against values known in closed form and the sum over its edges."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.knowledge_graph.metrics import CHUNK, dirichlet_energies, dirichlet_energy


def test_the_energy_of_a_relation_is_0_1_or_2_for_ends_alike_at_right_angles_or_opposite():
    x = np.array([[2.0, 0], [2, 0], [0, 2], [-2, 0]])
    zero, one, two, three = (np.array([i]) for i in range(4))
    edges = {"alike": (zero, one), "apart": (zero, two), "opposite": (zero, three), "none": (zero[:0], zero[:0])}
    found = dirichlet_energies(x, edges)
    assert [found[name] for name in ("alike", "apart", "opposite")] == [0, 1, 2]
    assert np.isnan(found["none"])


def test_the_energy_in_chunks_equals_the_sum_over_edges():
    rng = np.random.default_rng(0)
    x, (source, target) = rng.normal(size=(500, 16)), rng.integers(0, 500, (2, CHUNK + 4_000))
    direct = np.square(x[source] - x[target]).sum()
    size = np.square(x[source]).sum() + np.square(x[target]).sum()
    assert dirichlet_energy(x, source, target) == pytest.approx(direct / size, rel=1e-9)
