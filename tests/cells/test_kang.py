"""Kang 2018 with its known counts, and of what its genes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from torchcell.cells.gene_selection import known_list
from torchcell.cells.sources import STIMULUS, kang2018, kang_cells

pytestmark = pytest.mark.mirror


def test_the_counts_are_the_known_ones(mirror: Path) -> None:
    cells = kang_cells()
    assert cells.X.shape == (1_975, 6_998)
    assert sparse.issparse(cells.X)
    assert cells.is_control.sum() == 936
    assert set(cells.perturbation.tolist()) == {"control", STIMULUS}
    parts = ("transcription_factor", "cell_cycle_S", "cell_cycle_G2M", "metabolic", "pluripotency")
    genes = set(cells.genes.tolist())
    assert [len(genes & set(known_list(name))) for name in parts] == [602, 27, 31, 461, 323]


def test_a_condition_is_a_cell_type(mirror: Path) -> None:
    record = kang2018().validate()
    assert len(record) == len(np.unique(record.column("cell_type"))) == 7
    assert record.targets[0] == (STIMULUS,)
    assert dict(zip(record.group.tolist(), record.sizes.tolist(), strict=True))["CD4T"] == 356
    change = (record.target - record.eval_control).mean(0)
    assert "ISG15" in record.genes[np.argsort(-change)[:5]]
