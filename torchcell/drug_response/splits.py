"""Splits of drug response: what is held out is a condition, a drug, a scaffold, a cell line, or drug and line."""

from __future__ import annotations

import numpy as np

from torchcell.core.split import SplitMethods, assign_folds
from torchcell.drug_response.drug_identity import drug_keys, joined, parent
from torchcell.drug_response.record import Response
from torchcell.drug_response.structures import refuse_rejected, scaffold
from torchcell.io.errors import InputError

ENOUGH_LINES = 5
"""Held-out lines from which on a bootstrap may resample lines; below it resamples drugs."""


def by_condition(record: Response, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Line, drug, dose and time together: replicates stay in one part. Other doses of a drug are seen in training."""
    condition = record.condition
    return _assigned(record, condition, "conditions", n_folds, fold, seed), condition, "condition"


def cold_drug(record: Response, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A drug is held out in all lines, doses and forms: drugs are told apart by their skeleton, see ``drug_keys``."""
    keys = drug_keys(record)
    return _assigned(record, keys, "drugs", n_folds, fold, seed), keys, "drug"


def cold_scaffold(record: Response, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """All drugs of a Murcko scaffold are held out; a drug without a ring, or of unknown structure, stands alone."""
    keys = drug_keys(record)
    units = joined(keys, scaffold_keys(record, keys))
    return _assigned(record, units, "scaffolds", n_folds, fold, seed), units, "scaffold"


def cold_cell(record: Response, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A cell line is held out with all its samples."""
    lines = record.cell_line.astype(str)
    part = _assigned(record, lines, "cell lines", n_folds, fold, seed)
    if len(np.unique(lines[part == "test"])) >= ENOUGH_LINES:
        return part, lines, "cell line"
    return part, drug_keys(record), "drug"


def cold_drug_cell(record: Response, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Test samples are of a held-out drug on a held-out line; samples of which only one is held out are ``unused``."""
    keys = drug_keys(record)
    of_drug = _assigned(record, keys, "drugs", n_folds, fold, seed)
    of_line = _assigned(record, record.cell_line.astype(str), "cell lines", n_folds, fold, seed)
    return np.where(of_drug == of_line, of_drug, "unused"), keys, "drug"


def scaffold_keys(record: Response, drug_key: np.ndarray) -> np.ndarray:
    """Murcko scaffold of each sample's parent molecule [n], without stereochemistry; without a ring, the drug's key.

    A counterion has no part in it: the ring of a tosylate is no scaffold of the drug.
    """
    if record.smiles is None:
        raise InputError(f"{record.name} has no SMILES, so there are no scaffolds to hold out; use split=cold_drug")
    rows = list(zip(record.smiles.tolist(), record.drug.tolist(), strict=True))
    refuse_rejected(record.name, sorted({(drug, text) for text, drug in rows}))
    ring_of = {row: scaffold(parent(*row), row[1]) if row[0] else "" for row in set(rows)}
    return np.array([ring_of[row] or key for row, key in zip(rows, drug_key.tolist(), strict=True)])


def _assigned(record: Response, units: np.ndarray, what: str, n_folds: int, fold: int, seed: int) -> np.ndarray:
    """Parts [n] of a deal of ``units``; a fold that would be empty is an error that says which folds there are."""
    n_units = len(np.unique(units))
    if n_units < 3:
        raise InputError(
            f"{record.name} has {n_units} of the {what} to hold out ({', '.join(np.unique(units)[:3])}); training, "
            "validation and test need one each, so at least 3: use another split, or more data"
        )
    if n_units < n_folds:
        raise InputError(
            f"{record.name}: {n_units} {what} can't fill {n_folds} folds; set split.n_folds={n_units} or fewer "
            f"(you asked for fold {fold})"
        )
    part_of = assign_folds(units, n_folds, fold, seed)
    return np.array([part_of[unit] for unit in units.tolist()])


SPLITS = SplitMethods(
    "drug response",
    lambda record: (record.condition, "condition"),  # replicates are torn apart, yet they are no independent clusters
    {
        "condition": by_condition,
        "cold_drug": cold_drug,
        "scaffold": cold_scaffold,
        "cold_cell": cold_cell,
        "cold_drug_cell": cold_drug_cell,
    },
)
