"""What the baselines of drug response share: the record they know, features of a sample, and the score on val."""

from __future__ import annotations

import numpy as np

from torchcell.baselines.group_means import group_means
from torchcell.data.errors import InputError
from torchcell.data.plate_centre import FEWEST
from torchcell.data.quantities import LEAST_DOSE
from torchcell.data.response import UNKNOWN_PLATE, Response


def require_same_outputs(record: Response, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than the one fitted on: columns would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def change(record: Response) -> np.ndarray:
    """Treated minus the sample's own control, float64 [n, G]."""
    return record.treated.astype(np.float64) - record.control


def plate_means(train: Response, asked: Response) -> np.ndarray:
    """Mean treated expression in train on each asked sample's line and plate, float64 [m, G].

    A line with fewer than five training samples on that plate gets its mean in the source of the plates, else over all
    of them, as in ``plate_centre``; an unseen line the mean of all. A sample of ``UNKNOWN_PLATE`` has none (NaN).
    """
    found_mG = group_means(train.treated, train.cell_line, asked.cell_line, train.treated.mean(0, dtype=np.float64))
    for field in ("source", "plate"):
        names, wanted = getattr(train, field), getattr(asked, field)
        if names is None or wanted is None:
            continue
        names, wanted = _pairs(train.cell_line, names), _pairs(asked.cell_line, wanted)
        unique, counts = np.unique(names, return_counts=True)
        known_m = np.isin(wanted, unique[counts >= FEWEST])
        found_mG[known_m] = group_means(train.treated, names, wanted[known_m], train.treated[0])
    found_mG[asked.plate == UNKNOWN_PLATE] = np.nan
    return found_mG


def _pairs(line: np.ndarray, name: np.ndarray) -> np.ndarray:
    return np.array([f"{a}|{b}" for a, b in zip(line.tolist(), name.tolist(), strict=True)], dtype=str)


def log_dose(record: Response) -> np.ndarray:
    """log10 of the dose in µM, float64 [n]."""
    return np.log10(np.maximum(record.dose_value.astype(np.float64), LEAST_DOSE))


def molecule_rows(record: Response) -> np.ndarray:
    """Vector of each sample's drug and, behind it, whether it has none, float64 [n, F + 1]."""
    drug, molecules = record.drug_index, record.molecules
    assert molecules is not None
    table = np.column_stack([molecules.vectors, ~molecules.known]).astype(np.float64)
    return table[drug]


def change_score(record: Response, prediction: np.ndarray) -> float:
    """Mean over samples of the Pearson correlation over genes of true and predicted change from control.

    Args:
        record: With its measurements.
        prediction: Predicted treated expression [n, G].

    Returns:
        The score over the samples where it is defined; minus infinity where there is none.
    """
    true, predicted = change(record), prediction - record.control.astype(np.float64)
    true, predicted = true - true.mean(1, keepdims=True), predicted - predicted.mean(1, keepdims=True)
    norm = np.linalg.norm(true, axis=1) * np.linalg.norm(predicted, axis=1)
    held = norm > 0
    return float(((true * predicted).sum(1)[held] / norm[held]).mean()) if held.any() else -np.inf
