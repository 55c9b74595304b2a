"""What the values of cells are, and whether they are that: a look at each stored value, once, as cells pass by."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import sparse

from torchcell.io.errors import InputError, refuse, some

Scale = Literal["counts", "lognorm"]
"""What the values are: raw UMI counts, or log of normalized counts."""
HIGHEST_LOG = 30.0
"""No log of a count is higher."""
HIGHEST_COUNT = 2.0**31
"""No count of a gene in a cell is higher."""
CHUNK = 4096
"""Cells that are read from disk at a time."""


class ScaleError(InputError):
    """The values are not what ``scale`` says; another matrix of the file may be."""


class ValueChecks:
    """Finds values that no expression has, and those that are not what ``scale`` says.

    Args:
        name: Of the record, for messages.
        scale: What the values should be.
        ids: Names of the cells [n].
        genes: Names of the genes [G].
    """

    def __init__(self, name: str, scale: Scale, ids: np.ndarray, genes: np.ndarray) -> None:
        self.name, self.scale, self.ids, self.genes = name, scale, ids, genes
        self.odd: dict[str, list[str]] = {"infinite": [], "negative": [], "huge": [], "fraction": []}
        self.highest, self.where, self.whole = 0.0, "", True

    def add(self, start: int, chunk: Any) -> None:
        """Look at the cells from ``start`` on; a sparse zero is never odd."""
        entries = chunk if sparse.issparse(chunk) else None
        values = np.asarray(chunk).ravel() if entries is None else entries.data
        if not len(values):
            return
        most, least, fraction = values.max(), values.min(), values != np.floor(values)
        if not (np.isfinite(most) and least >= 0 and most <= HIGHEST_COUNT) or (
            self.scale == "counts" and fraction.any()
        ):
            self._add_odd(start, entries, values, fraction)
        finite = values if np.isfinite(most) else values[np.isfinite(values)]
        if (top := float(finite.max(initial=0.0))) > self.highest:
            (self.where,) = self._named(start, entries, np.flatnonzero(values == top)[:1], values)
            self.highest = top
        self.whole = self.whole and not (fraction & np.isfinite(values) if finite is not values else fraction).any()

    def _add_odd(self, start: int, entries: Any, values: np.ndarray, fraction: np.ndarray) -> None:
        finite = np.isfinite(values)
        for what, found in (
            ("infinite", ~finite), ("negative", values < 0), ("huge", values > HIGHEST_COUNT),
            ("fraction", fraction & finite & (self.scale == "counts")),
        ):  # fmt: skip
            self.odd[what] += self._named(start, entries, np.flatnonzero(found), values)

    def finish(self) -> None:
        """Raise one ``InputError`` that names the offending cells, if there are any."""
        odd, highest = self.odd, self.highest
        refuse(self.name, odd["infinite"], "values that are not finite in float32", "mend them")
        refuse(self.name, odd["negative"], "negative values", f"{self.scale} has none")
        few = len(odd["fraction"]) < len(self.ids) / 2
        if self.scale == "counts" and self.whole:
            refuse(self.name, odd["huge"], f"values above {HIGHEST_COUNT:.2g}, which no count is", "mend them")
        elif self.scale == "counts" and (few or highest <= HIGHEST_LOG):
            fractions = f"{len(odd['fraction'])} sample(s) with values that are no integers: {some(odd['fraction'])}"
            raise ScaleError(f"{self.name}: {fractions}; give raw counts, or declare scale=lognorm")
        elif self.scale == "lognorm" and self.whole and highest > 1:
            raise ScaleError(f"{self.name}: declared log-normalized, but all values are integers: declare scale=counts")
        elif highest > HIGHEST_LOG:
            raise ScaleError(
                f"{self.name}: the values are neither counts nor logs (highest {highest:.4g}, {self.where}); scale "
                "each cell to one total where that was not done, take the logarithm (np.log1p) and declare "
                "scale=lognorm, or give raw counts"
            )

    def _named(self, start: int, entries: Any, at: np.ndarray, values: np.ndarray) -> list[str]:
        """Cell, gene and value of the values at these places of a chunk from cell ``start`` on; a cell once."""
        if entries is None:
            cell, gene = np.divmod(at, len(self.genes))
        else:
            cell, gene = np.searchsorted(entries.indptr, at, side="right") - 1, entries.indices[at]
        once = np.unique(cell, return_index=True)[1]
        named = zip(self.ids[cell[once] + start], self.genes[gene[once]], values[at[once]], strict=True)
        return [f"{one} ({name}: {value:g})" for one, name, value in named]
