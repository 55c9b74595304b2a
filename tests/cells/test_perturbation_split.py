"""What is held out of cells is seen nowhere in training: genes, combinations, lines."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_cells, simulated_perturbseq
from torchcell.cells.sources import kang2018
from torchcell.cells.splits import SPLITS, genes_seen
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    return simulated_perturbseq(n_genes=30, n_regulators=24, n_doubles=30, n_lines=2, cells_per_condition=3)


def genes(record: Pseudobulk) -> set[str]:
    return {gene for targets in record.targets for gene in targets}


def test_no_gene_of_an_unseen_perturbation_is_perturbed_in_training(record: Pseudobulk) -> None:
    tested = np.zeros(len(record), dtype=int)
    for fold in range(5):
        split = SPLITS.make(record, "unseen_perturbation", fold=fold)
        part = {name: record.subset(split.index(name)) for name in ("train", "val", "test")}
        assert not genes(part["test"]) & genes(part["train"])
        assert not genes(part["test"]) & genes(part["val"])
        assert not genes(part["val"]) & genes(part["train"])
        tested += split.part == "test"
        mixed = record.subset(split.index("unused"))
        assert all(len(targets) == 2 for targets in mixed.targets)
        following = SPLITS.make(record, "unseen_perturbation", fold=(fold + 1) % 5)
        np.testing.assert_array_equal(split.part == "val", following.part == "test")
    single = np.array([len(targets) == 1 for targets in record.targets])
    assert (tested[single] == 1).all()
    assert split.key == "perturbed gene"
    for targets, clusters in zip(record.targets, split.group.tolist(), strict=True):
        assert set(targets) == set(clusters) - {""}


def test_combinations_are_tested_with_none_some_and_all_genes_seen(record: Pseudobulk) -> None:
    seen = []
    for fold in range(5):
        split = SPLITS.make(record, "combination", fold=fold)
        train, test = (record.subset(split.index(name)) for name in ("train", "test"))
        assert all(len(targets) == 2 for targets in test.targets)
        held = {frozenset(targets) for targets in test.targets}
        assert not held & {frozenset(targets) for targets in train.targets}
        unused = record.subset(split.index("unused"))
        assert all(len(targets) == 1 for targets in unused.targets)
        assert not genes(unused) & genes(train)
        seen += genes_seen(test, train).tolist()
    assert set(seen) == {0, 1, 2}


def test_the_order_in_a_label_does_not_tear_a_combination(record: Pseudobulk) -> None:
    turned = record.perturbation.copy()
    second = np.array([group == "LINE2" for group in record.group])
    turned[second] = ["+".join(reversed(label.split("+"))) for label in turned[second].tolist()]
    from dataclasses import replace

    other = replace(record, perturbation=turned)
    for method in ("combination", "unseen_perturbation"):
        first, again = SPLITS.make(record, method), SPLITS.make(other, method)
        np.testing.assert_array_equal(first.part, again.part)
        np.testing.assert_array_equal(first.group, again.group)


def test_a_line_is_held_out_whole(record: Pseudobulk) -> None:
    three = simulated_perturbseq(n_genes=30, n_regulators=16, n_doubles=0, n_lines=3, cells_per_condition=3)
    split = SPLITS.make(three, "cold_cell", n_folds=3)
    assert {name: set(three.group[split.index(name)].tolist()) for name in ("train", "val", "test")} == {
        name: {line} for name, line in zip(("train", "val", "test"), _lines(three, split), strict=True)
    }
    assert split.key == "perturbed gene"
    with pytest.raises(InputError, match="has 2 of the cell lines to hold out"):
        SPLITS.make(record, "cold_cell")
    with pytest.raises(InputError, match="controls are paired by nothing, so there are no lines"):
        SPLITS.make(Pseudobulk.from_cells(simulate_cells().cells.lognorm()), "cold_cell")


def _lines(record: Pseudobulk, split) -> list[str]:
    return [record.group[split.index(name)][0] for name in ("train", "val", "test")]


def test_a_random_split_resamples_perturbations(record: Pseudobulk) -> None:
    assert SPLITS.make(record, "random").key == "perturbed gene"


def test_methods_of_other_tasks_and_too_few_units_are_answered() -> None:
    small = Pseudobulk.from_cells(simulate_cells(n_singles=4, n_doubles=0).cells.lognorm())
    with pytest.raises(InputError, match="no condition that perturbs several genes"):
        SPLITS.make(small, "combination")
    with pytest.raises(InputError, match="4 genes can't fill 5 folds; set split.n_folds=4 or fewer"):
        SPLITS.make(small, "unseen_perturbation")
    with pytest.raises(InputError, match="no split method 'cold_drug' for single cells; .*combination"):
        SPLITS.make(small, "cold_drug")


@pytest.mark.mirror
def test_the_real_set_with_one_perturbation_splits_by_cell_type(mirror) -> None:
    record = kang2018()
    split = SPLITS.make(record, "cold_cell")
    assert split.key == "condition"
    assert split.counts()["test"] == 2
    with pytest.raises(InputError, match="has 1 of the genes to hold out"):
        SPLITS.make(record, "unseen_perturbation")
