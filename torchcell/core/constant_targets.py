"""Notes on targets of which nothing can be learned, or by which nothing can be judged: one value, one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from torchcell.evaluation.metrics import is_flat
from torchcell.io.errors import some

MEANS = {
    "train": "nothing can be learned of it",
    "val": "the epochs can't be compared by it",
    "test": "correlations and areas under curves are undefined of it",
}
"""What it means where a target has one value only in a part."""


def constant_notes(targets: Mapping[str, np.ndarray], outputs: Sequence[str], labels: bool, whole: bool) -> list[str]:
    """A sentence for each part of the split in which an output does not vary.

    Args:
        targets: Measured values [n, T] by part; NaN where missing.
        outputs: Names of the T outputs.
        labels: Whether the values are classes, 0 and 1.
        whole: Speak only where no output varies, as of genes, some of which are never expressed.

    Example:
        >>> constant_notes({"train": np.ones((3, 1))}, ["growth"], labels=False, whole=False)
        ["WARNING: in the train part 'growth' has one value only: nothing can be learned of it."]
    """
    found = []
    for part, values in targets.items():
        columns = [column[~np.isnan(column)] for column in np.asarray(values, dtype=np.float64).T]
        flat = [name for name, column in zip(outputs, columns, strict=True) if len(column) and is_flat(column)]
        if flat and (len(flat) == len(columns) or not whole):
            what = "one class only" if labels else "one value only"
            found.append(f"WARNING: in the {part} part {some(flat)} has {what}: {MEANS[part]}.")
    return found
