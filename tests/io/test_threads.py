"""torch keeps its number of threads whatever numba does behind scanpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.cells.gene_selection import HighlyVariable
from torchcell.cells.simulate import simulated_perturbseq
from torchcell.report.maps import umap_coordinates


@pytest.fixture
def threads():
    """A number that is not numba's, which takes all cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_choosing_variable_genes_leaves_the_threads_as_they_were(threads):
    """A process that had chosen genes went on with all cores, one beside it with one, and their weights drifted apart."""
    HighlyVariable().symbols(simulated_perturbseq(n_genes=40, n_regulators=16, n_doubles=0, cells_per_condition=8))
    assert torch.get_num_threads() == threads


@pytest.mark.long
def test_a_umap_leaves_the_threads_as_they_were(threads):
    umap_coordinates(np.random.default_rng(0).normal(size=(40, 5)))
    assert torch.get_num_threads() == threads
