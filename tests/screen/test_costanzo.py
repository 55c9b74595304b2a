from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from torchcell.screen.record import Screen
from torchcell.screen.sources import costanzo2010, read_rows, strain_names

pytestmark = pytest.mark.mirror


@pytest.fixture(scope="module")
def rows(mirror) -> pd.DataFrame:
    return read_rows()


@pytest.fixture(scope="module")
def screen(mirror) -> Screen:
    return costanzo2010()


def test_counts_of_the_raw_file(rows):
    assert len(rows) == 191_309
    assert rows["query"].nunique() == 1_670
    assert rows["array"].nunique() == 3_885
    assert len(set(rows["query"]) | set(rows["array"])) == 4_414
    assert (rows["epsilon"] < 0).sum() == 124_066
    assert (rows["epsilon"] > 0).sum() == 67_243


def test_one_sample_for_each_unordered_pair(screen, rows):
    naive = {frozenset(pair) for pair in zip(rows["query"], rows["array"], strict=True)}
    assert len(screen) == len(naive) == 165_947
    assert {frozenset(genes) for genes in screen.sets()} == naive
    assert len(screen.genes) == 4_414
    assert (screen.genes[:-1] < screen.genes[1:]).all()
    screen.validate()


def test_the_two_orientations_are_one_measurement_written_twice(rows):
    one = rows[rows["query"] < rows["array"]].groupby(["query", "array"])["epsilon"].mean()
    other = rows[rows["query"] > rows["array"]].groupby(["array", "query"])["epsilon"].mean()
    both = pd.concat([one, other.rename_axis(["query", "array"])], axis=1, join="inner").to_numpy()
    assert len(both) == 23_595
    assert round(np.corrcoef(both.T)[0, 1], 5) == 0.99996


def test_alleles_of_a_pair_agree_at_73_hundredths(rows):
    same = rows[rows.duplicated(["query", "array"], keep=False)]
    values = [group.tolist() for _, group in same.groupby(["query", "array"])["epsilon"]]
    twice = np.array([pair for group in values for pair in combinations(group, 2)])
    assert len(twice) == 2_162
    assert round(np.corrcoef(np.vstack([twice, twice[:, ::-1]]).T)[0, 1], 2) == 0.73


def test_orientations_merge_before_alleles_are_averaged(screen, rows):
    # a twin must not count twice beside another allele: mean(mean(twins), allele), checked by a plain loop
    by_pair: dict[frozenset[str], dict[frozenset[str], list[float]]] = {}
    for row in rows.itertuples():
        strains = by_pair.setdefault(frozenset((row.query, row.array)), {})
        strains.setdefault(frozenset((row.query_strain, row.array_strain)), []).append(row.epsilon)
    naive = np.array([np.mean([np.mean(v) for v in by_pair[frozenset(genes)].values()]) for genes in screen.sets()])
    np.testing.assert_allclose(screen.phenotype[:, 0], naive, atol=1e-6)
    counts = [len(by_pair[frozenset(genes)]) for genes in screen.sets()]
    assert screen.columns["n_measurements"].tolist() == counts
    assert sum(counts) == 167_720


def test_losses_account_for_every_row(screen, rows):
    assert len(rows) - sum(screen.dropped.values()) == len(screen)
    assert screen.dropped["rows that repeat a measurement in the other orientation"] == 23_589


def test_roles_are_those_of_the_rows(screen, rows):
    queries: dict[str, set[str]] = {}
    arrays: dict[str, set[str]] = {}
    for query, array in zip(rows["query"], rows["array"], strict=True):
        key = "|".join(sorted((query, array)))
        queries.setdefault(key, set()).add(query)
        arrays.setdefault(key, set()).add(array)
    assert screen.columns["query"].tolist() == ["|".join(sorted(queries[i])) for i in screen.sample_id.tolist()]
    assert screen.columns["array"].tolist() == ["|".join(sorted(arrays[i])) for i in screen.sample_id.tolist()]


def test_the_second_call_reads_the_cache(screen, monkeypatch):
    def parse_again():
        raise AssertionError("parsed a second time")

    monkeypatch.setattr("torchcell.screen.sources.read_rows", parse_again)
    again = costanzo2010()
    assert again.phenotype.tobytes() == screen.phenotype.tobytes()
    assert again.sample_id.tolist() == screen.sample_id.tolist()


def test_strain_names_name_one_orf_each_but_for_one_cluster(mirror):
    names = strain_names()
    assert names["CDC2-7"] == names["CDC2"] == {"YDL102W"}
    assert names["PTA1"] == {"YAL043C"}
    assert {name for name, orfs in names.items() if len(orfs) > 1} == {"ASP3"}
