"""A+B and B+A are one condition: counted together, never torn by a split, and answered by one prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.splits import SPLITS
from torchcell.cells.table import ConditionOptions, Controls, Trained, cells_file, read_cells_request
from torchcell.core.split import Split
from torchcell.io.errors import InputError
from torchcell.io.gene_names import alias_table
from torchcell.io.labels import ordered


@pytest.fixture(scope="module")
def cells() -> CellExpression:
    """Every other cell of a pair bears the label the other way round."""
    made = simulate_cells(n_singles=9, n_doubles=8).cells
    turned = np.array(["+".join(reversed(label.split("+"))) for label in made.perturbation.tolist()])
    label = np.where(np.arange(len(made)) % 2 == 1, turned, made.perturbation)
    return replace(made, perturbation=label)


def test_cells_of_both_orders_are_counted_and_averaged_together(cells):
    """90 conditions for 45 pairs; 13 of them had one order in train and the other in test."""
    made = simulate_cells(n_singles=9, n_doubles=8).cells
    both, one = (Pseudobulk.from_cells(each.lognorm(), ["cell_line"]) for each in (cells, made))
    assert both.sample_id.tolist() == one.sample_id.tolist()
    assert both.sizes.tolist() == one.sizes.tolist()
    np.testing.assert_array_equal(both.target, one.target)
    most = int(both.sizes.min())
    assert len(Pseudobulk.from_cells(cells.lognorm(), ["cell_line"], min_cells=most)) == len(both)


def test_a_file_tells_how_many_labels_stood_in_another_order_and_thins_them_together(cells, tmp_path):
    cells.to_anndata().write_h5ad(tmp_path / "cells.h5ad")
    found = cells_file(tmp_path / "cells.h5ad", "counts", covariates=("cell_line",))
    assert found.dropped == {"labels with the genes of another one in another order": 8}
    few = cells_file(
        tmp_path / "cells.h5ad",
        "counts",
        covariates=("cell_line",),
        conditions=ConditionOptions(max_cells=len(cells) // 2),
    )
    assert few.sample_id.tolist() == found.sample_id.tolist()


def test_an_alias_does_not_bring_another_order_back(cells, tmp_path):
    pd.DataFrame({"alias": ["ZZZ"], "gene": [cells.genes[0]]}).to_csv(tmp_path / "aliases.csv", index=False)
    pair = f"{cells.genes[0]}+{cells.genes[1]}"
    label = np.where(np.arange(len(cells)) % 2 == 1, f"ZZZ+{cells.genes[1]}", pair)
    named = replace(cells, perturbation=np.where(cells.is_control, cells.perturbation, label))
    found = named.named_as_measured(alias_table(tmp_path / "aliases.csv"))
    assert set(found.perturbation[~found.is_control]) == {pair}


def test_no_split_tears_the_two_orders_apart_even_where_a_record_holds_both(cells):
    record = Pseudobulk.from_cells(cells.lognorm(), ["cell_line"])
    turned = np.array(["+".join(reversed(label.split("+"))) for label in record.perturbation.tolist()])
    pairs = np.flatnonzero(turned != record.perturbation)
    both = record.subset(np.concatenate([np.arange(len(record)), pairs]))
    label = np.concatenate([record.perturbation, turned[pairs]])
    ids = np.char.add(np.char.add(label, "|"), both.group)
    both = replace(both, perturbation=label, sample_id=ids)
    for method in sorted({"random", *SPLITS.methods} & {"random", "unseen_perturbation", "combination"}):
        for fold in range(5):
            part = SPLITS.make(both, method, fold=fold).part
            assert np.array_equal(part[pairs], part[len(record) :]), method
    torn = np.where(np.arange(len(both)) < len(record), "train", "test")
    torn[0] = "val"
    split = Split(both.sample_id, torn, both.sample_id, "file", 0, "sample")
    with pytest.raises(InputError, match="have a duplicate .the same perturbation. in another part"):
        split.validate(both.sample_id, both.duplicate_keys())
    assert (
        SPLITS.make(record, "random").part.tolist()
        == SPLITS.make(both.subset(np.arange(len(record))), "random").part.tolist()
    )


def test_a_request_may_name_a_pair_in_either_order(cells, tmp_path):
    controls = cells.subset(np.flatnonzero(cells.is_control)[:20])
    controls.to_anndata().write_h5ad(tmp_path / "controls.h5ad")
    genes = cells.genes.tolist()
    trained = Trained(genes, genes, np.zeros(len(genes)), "counts", 1e4, ())

    def asked(*labels: str) -> list[str]:
        pd.DataFrame({"perturbation": labels}).to_csv(tmp_path / "list.csv", index=False)
        return read_cells_request(
            tmp_path / "list.csv", Controls(tmp_path / "controls.h5ad"), trained
        ).perturbation.tolist()

    a, b = genes[3], genes[5]
    assert asked(f"{b}+{a}", f" {b.lower()} ") == [f"{a}+{b}", b]
    with pytest.raises(InputError, match="used twice"):
        asked(f"{a}+{b}", f"{b}+{a}")


def test_order_is_that_of_the_alphabet():
    assert ordered(np.array(["B+A", "A", "C+B+A", "A+B"])).tolist() == ["A+B", "A", "A+B+C", "A+B"]
