"""The phenome network: who is near whom by the phenotypes of single knock-outs."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.screen.yeast_phenome import profiles, yeast_phenome


def test_genes_of_a_module_have_like_profiles_though_all_screens_measure_growth():
    rng = np.random.default_rng(0)
    of = np.arange(60) % 6
    growth = rng.normal(size=(60, 1))  # in every screen, and no sign of a module
    value = 3 * growth + rng.normal(size=(6, 80))[of] + 0.5 * rng.normal(size=(60, 80))
    value[rng.random(value.shape) < 0.2] = np.nan
    value[7] = np.nan
    found = profiles(value)
    assert not found[7].any()
    assert np.isfinite(found).all()
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    rows = np.delete(np.arange(60), 7)
    assert np.mean(of[cosine.argmax(1)[rows]] == of[rows]) > 0.7, "a sixth by chance"


@pytest.mark.mirror
def test_the_network_joins_genes_of_one_complex_once_and_no_gene_to_itself(mirror):
    network = yeast_phenome().validate()
    assert not network.directed
    assert (network.source != network.target).all()
    ends = [tuple(sorted(pair)) for pair in zip(network.source.tolist(), network.target.tolist(), strict=True)]
    assert len(set(ends)) == len(ends)
    assert {("YAL021C", "YNR052C"), ("YDL042C", "YKR101W")} <= set(ends), "CCR4 and POP2, SIR2 and SIR1"
    assert network.weight.min() > 0
    assert network.weight.max() <= 1 + 1e-6
    assert network.dropped["genes without a phenotype"] < 50


def test_a_gene_needs_a_neighbor():
    with pytest.raises(InputError, match="neighbors=0; a gene needs one or more"):
        yeast_phenome(neighbors=0)
