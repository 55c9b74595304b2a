"""Papalexi 2021 with its known counts: certain guides only, nine non-targeting guides as control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchcell.cells.sources import GUIDE, non_targeting, papalexi2021, papalexi_cells

pytestmark = pytest.mark.mirror


def test_the_counts_are_the_known_ones(mirror: Path) -> None:
    whole, cells = papalexi_cells(confident=False), papalexi_cells()
    assert whole.X.shape == (20_729, 299)
    assert (len(cells), cells.is_control.sum()) == (16_192, 1_923)
    assert cells.dropped == {"cells with an uncertain guide": 4_537}
    assert len(np.unique(cells.perturbation)) == 26
    assert cells.scale == "counts"
    guides = non_targeting(cells)
    assert len(guides) == 9
    assert all(guide.startswith(GUIDE) for guide in guides)
    assert not np.isin(cells.covariates["guide"][~cells.is_control], guides).any()
    assert float(np.median(np.asarray(whole.X.sum(1)))) == 186


def test_conditions_with_and_without_replicates_paired(mirror: Path) -> None:
    record = papalexi2021().validate()
    assert record.target.shape == (25, 299)
    assert np.diff(record.control_ptr).tolist() == [961, 962]
    assert set(record.group.tolist()) == {"all"}
    paired = papalexi2021(covariates=["batch"])
    assert len(paired) == 74
    assert paired.dropped["conditions with fewer than 10 cells"] == 1  # SPI1 in the second replicate
    assert paired.cells.counts is not None
