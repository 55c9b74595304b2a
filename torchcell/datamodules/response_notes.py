"""What ``predict`` says of drugs on cell lines whose like training never met."""

from __future__ import annotations

import numpy as np

from torchcell.data.quantities import LEAST_DOSE
from torchcell.data.response import Response
from torchcell.datamodules.prediction_notes import (
    Notes,
    between,
    is_outside,
    trained_range,
    unless_known,
)
from torchcell.datamodules.spec import Spec


def response_notes(record: Response, spec: Spec) -> Notes:
    """Drugs and cell lines without training samples; doses and times outside the trained range."""
    extras = spec.extras
    table = extras["molecules"]
    drugs = [name for name, trained in zip(table["id"], table["trained"].tolist(), strict=True) if trained]
    notes = {
        "drug without training samples": unless_known("no training sample of", record.drug, drugs),
        "unseen cell line": unless_known("no training sample of cell line", record.cell_line, extras["lines"]),
    }
    ranges = {
        "dose": (np.maximum(record.dose_value, LEAST_DOSE), 10 ** extras["trained"]["log_dose"].double(), "µM"),
        "time": (np.maximum(record.time, 1.0), 2 ** extras["trained"]["log_time"].double(), "h"),
    }
    for what, (values, trained, unit) in ranges.items():
        bounds = trained_range(trained.numpy())
        outside = is_outside(values, bounds)
        notes[f"{what} outside the trained range"] = [
            f"trained on {what}s of {between(bounds)} {unit}, not {value:.4g}" if odd else ""
            for value, odd in zip(values.tolist(), outside.tolist(), strict=True)
        ]
    return notes
