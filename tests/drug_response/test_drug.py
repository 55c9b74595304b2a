"""What is held out of a drug response is seen nowhere in training, whatever its spelling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torchcell.drug_response.drug_identity import drug_keys
from torchcell.drug_response.record import Response
from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.sources import l1000_level3, l1000_level5
from torchcell.drug_response.splits import SPLITS
from torchcell.drug_response.structures import scaffold
from torchcell.io.errors import InputError

METHODS = ("random", "condition", "cold_drug", "scaffold", "cold_cell", "cold_drug_cell")


@pytest.fixture(scope="module")
def response() -> Response:
    return simulate_response(n_drugs=40, n_genes=8, coverage=0.8).response


def units(response: Response, what: str) -> np.ndarray:
    assert response.smiles is not None
    return {
        "condition": response.condition,
        "cold_drug": response.drug,
        "cold_cell": response.cell_line,
        "scaffold": np.array([scaffold(text) for text in response.smiles.tolist()]),
    }[what]


@pytest.mark.parametrize("method", ["condition", "cold_drug", "cold_cell", "scaffold"])
def test_what_is_held_out_is_in_one_part_and_each_sample_is_tested_once(response: Response, method: str) -> None:
    tested = np.zeros(len(response), dtype=int)
    for fold in range(5):
        split = SPLITS.make(response, method, fold=fold)
        held = units(response, method)
        parts = [set(held[split.part == part].tolist()) for part in ("train", "val", "test")]
        assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
        tested += split.part == "test"
        following = SPLITS.make(response, method, fold=(fold + 1) % 5)
        assert np.array_equal(split.part == "val", following.part == "test")
    assert (tested == 1).all()


def test_a_cold_drug_on_a_cold_line_leaves_the_mixed_samples_unused(response: Response) -> None:
    split = SPLITS.make(response, "cold_drug_cell", fold=2)
    part = {name: response.subset(split.index(name)) for name in ("train", "val", "test", "unused")}
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        assert not set(part[one].drug) & set(part[other].drug)
        assert not set(part[one].cell_line) & set(part[other].cell_line)
    assert split.counts()["unused"] > split.counts()["test"] > 0
    cold = SPLITS.make(response, "cold_drug", fold=2), SPLITS.make(response, "cold_cell", fold=2)
    assert np.array_equal(split.part == "test", (cold[0].part == "test") & (cold[1].part == "test"))


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("random", "condition"), ("condition", "condition"), ("cold_drug", "drug"), ("scaffold", "scaffold"),
        ("cold_cell", "drug"), ("cold_drug_cell", "drug"),
    ],
)  # fmt: skip
def test_the_bootstrap_resamples_what_replicates_share(response: Response, method: str, key: str) -> None:
    """Two held-out lines are too few to resample, so cold_cell falls back on drugs."""
    split = SPLITS.make(response, method)
    assert split.key == key
    # Four drugs share a scaffold.
    n_units = {"condition": len(np.unique(response.condition)), "drug": 40, "scaffold": 10}[key]
    assert len(np.unique(split.group)) == n_units


def test_enough_held_out_lines_are_resampled_themselves(response: Response) -> None:
    lines = np.array([f"LINE{i % 30:02d}" for i in range(len(response))])
    split = SPLITS.make(replace(response, cell_line=lines), "cold_cell")
    assert split.key == "cell line"
    assert np.array_equal(split.group, lines)


def test_salts_names_and_writings_of_one_skeleton_are_one_drug(response: Response) -> None:
    record = response.subset(np.arange(7))
    drug = np.array(["alanine", "L-alanine", "alanine HCl", "other", "other", "nameless", "ALA"])
    smiles = np.array(["CC(N)C(=O)O", "C[C@H](N)C(=O)O", "", "CCO", "", "", "OC(=O)C(C)N"])
    record = replace(record, drug=drug, smiles=smiles)
    keys = drug_keys(record)
    assert keys[0] == keys[1] == keys[6] == "QNAYBMKLOCPYGJ"
    assert keys[3] == keys[4] == "LFQSCWFLJHTTHZ"
    assert keys[2] == "alanine HCl"
    assert keys[5] == "nameless"
    given = np.array(["QNAYBMKLOCPYGJ-REOHCLBHSA-N" if name == "alanine HCl" else "" for name in drug])
    assert drug_keys(replace(record, inchikey=given))[2] == keys[0]
    assert drug_keys(replace(record, smiles=None)).tolist() == drug.tolist()


def test_molecules_without_a_ring_stand_alone_in_a_split_by_scaffold(response: Response) -> None:
    record = response.subset(np.arange(60))
    drug = np.array([f"chain{i % 20}" for i in range(60)])
    smiles = np.array(["C" * (1 + i % 20) + "O" for i in range(60)])
    split = SPLITS.make(replace(record, drug=drug, smiles=smiles), "scaffold")
    assert split.counts() == {"train": 36, "val": 12, "test": 12, "unused": 0}
    rings = np.array([f"c1ccccc1{'C' * (1 + i % 20)}" if i % 20 < 15 else smiles[i] for i in range(60)])
    split = SPLITS.make(replace(record, drug=drug, smiles=rings), "scaffold")
    assert len(set(split.part[np.arange(60) % 20 < 15])) == 1


@pytest.mark.parametrize(
    ("lines", "method", "options", "message"),
    [
        (["A375"], "cold_cell", {}, r"has 1 of the cell lines to hold out \(A375\); .* at least 3"),
        (["A375", "PC3"], "cold_drug_cell", {}, r"has 2 of the cell lines to hold out \(A375, PC3\)"),
        (["A375", "PC3", "HELA"], "cold_cell", {}, "3 cell lines can't fill 5 folds; set split.n_folds=3"),
        (None, "cold_drug", {"fold": 5}, "split.fold=5 of split.n_folds=5: needs at least 3 folds, numbered from 0"),
        (None, "cold_drug", {"n_folds": 41}, "40 drugs can't fill 41 folds"),
        (None, "cold_drugs", {}, "split= takes .*cold_drug"),
    ],
)
def test_folds_that_can_not_be_are_answered(
    response: Response, lines: list[str] | None, method: str, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SPLITS.make(response.on_lines(lines), method, **options)


def test_three_lines_make_three_folds(response: Response) -> None:
    split = SPLITS.make(response.on_lines(["A375", "PC3", "HELA"]), "cold_cell", n_folds=3)
    assert len({line for line, part in zip(split.group, split.part, strict=True) if part == "test"}) > 0


def test_bad_structures_and_methods_of_other_tasks_are_refused(response: Response) -> None:
    smiles = response.smiles.copy()  # type: ignore[union-attr]
    smiles[response.drug == "drug003"], smiles[response.drug == "drug005"] = "C1CC", "C1CC"
    with pytest.raises(InputError, match="rdkit rejects 2 SMILES: 'drug003: C1CC', 'drug005: C1CC'"):
        SPLITS.make(replace(response, smiles=smiles), "cold_drug")
    with pytest.raises(InputError, match="has no SMILES, so there are no scaffolds"):
        SPLITS.make(replace(response, smiles=None), "scaffold")
    with pytest.raises(InputError, match="no split method 'query_disjoint' for drug response; .*cold_drug_cell"):
        SPLITS.make(response, "query_disjoint")


@pytest.mark.mirror
def test_no_skeleton_of_the_real_drugs_is_in_two_parts(mirror) -> None:
    for record, n_drugs in ((l1000_level3(), 459), (l1000_level5(), 1356)):
        split = SPLITS.make(record, "cold_drug")
        assert len(np.unique(split.group)) == n_drugs
        held = set(record.drug[split.part == "test"].tolist())
        assert not held & set(record.drug[split.part != "test"].tolist())
    assert SPLITS.make(record, "cold_cell").key == "cell line"
