"""Our baselines reach the floors of the L1000 level-3 set; before that no model may be compared with them.

The floors are means over the samples of all five folds against each sample's control: .457 on the random split and
.416 for cold drugs, of a mean level plus a ridge on the fingerprint. They are those of the mean of the line *on its
plate*; of the line over all its plates the same ridge reaches .41 and .36 only, since A375 was measured on two plates
that differ more than drugs do.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from torchcell.drug_response.metrics import pearson2_top
from torchcell.drug_response.molecules import Morgan
from torchcell.drug_response.record import Response
from torchcell.drug_response.sources import l1000_level3
from torchcell.drug_response.splits import SPLITS
from torchcell.evaluation.metrics import ProfileContext, Profiles, pearson_delta

pytestmark = [pytest.mark.long, pytest.mark.mirror]
CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/response.yaml")


@pytest.fixture(scope="module")
def record(mirror: Path) -> Response:
    record = l1000_level3()
    return replace(record, molecules=Morgan()(record))


def profiles(name: str, record: Response, method: str) -> Profiles:
    """Out-of-fold predictions of the baseline as configured, all five folds together."""
    predicted = np.full(record.treated.shape, np.nan, dtype=np.float32)
    for fold in range(5):
        split = SPLITS.make(record, method, 5, fold)
        train, val, test = (record.subset(split.index(part)) for part in ("train", "val", "test"))
        predicted[split.index("test")] = instantiate(CONFIGS[name]).fit(train, val, None).predict(test.blind())
    return Profiles(record.treated, predicted, ProfileContext(record.control))


def interval(values: np.ndarray, drug: np.ndarray) -> tuple[float, float]:
    """95 % of the mean over samples, by a bootstrap of drugs."""
    names, row = np.unique(drug, return_inverse=True)
    total, count = np.bincount(row, values), np.bincount(row)
    drawn = np.random.default_rng(0).integers(0, len(names), (2000, len(names)))
    low, high = np.percentile(total[drawn].sum(1) / count[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize(("method", "floor", "at_least"), [("random", 0.457, 0.44), ("cold_drug", 0.416, 0.40)])
def test_the_plate_mean_and_a_ridge_on_the_fingerprint(record, method, floor, at_least):
    values = pearson_delta(profiles("plate_mean_ridge", record, method))
    low, high = interval(values, record.drug)
    assert low <= floor <= high
    assert values.mean() > at_least


def test_means_without_a_drug(record):
    for name, expected in (
        ("constant", 0.116),
        ("gene_mean", 0.250),
        ("line_gene_mean", 0.361),
        ("plate_gene_mean", 0.421),
    ):
        assert pearson_delta(profiles(name, record, "random")).mean() == pytest.approx(expected, abs=0.01), name


def test_a_constant_flatters_itself_in_the_published_form(record):
    found = pearson2_top(profiles("constant", record, "random"), 20, published=True)
    assert 0.50 < np.nanmean(found) < 0.67
