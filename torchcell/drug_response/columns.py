"""The columns that tell a treatment, by the names they may have: the same in training and in requests."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchcell.io.errors import InputError, near, some
from torchcell.io.quantities import DOSE, TIME, amounts
from torchcell.io.tables import text_cells

if TYPE_CHECKING:
    import pandas as pd


NAMES: dict[str, tuple[str, ...]] = {
    "drug": ("perturbation", "drug"),
    "dose_value": ("dose_value", "dose"),
    "dose_unit": ("dose_unit",),
    "time": ("time",),
    "time_unit": ("time_unit",),
    "cell_line": ("cell_line",),
    "plate": ("plate",),
    "smiles": ("smiles",),
    "inchikey": ("inchikey",),
    "source": ("source",),
    "sample_id": ("sample_id",),
}
"""What a column holds -> the names that are understood for it; each of them may also be a key of ``columns``."""
PUBLIC_WORDS = {
    "drug": r"perturbation|drug|drug_name|compound|treatment|pert_iname|struct_id",
    "cell_line": r"cell_line|cell_line_name|cell_id|cell_iname",
    "dose_value": r"dose_value|dose|(pert_)?(dose|conc|concentration)([_ (].*)?(?<!unit)",
    "time": r"(pert_)?(time|hours)([_ (].*)?(?<!unit)",
    "plate": r"plate|det_plate|rna_plate|plate_id",
}
"""Internal name -> how the columns of a drug response are called in public data sets."""


def likely_columns(present: Sequence[str]) -> dict[str, str]:
    """Internal name -> the column that holds it, for those of a drug response that are known by their name.

    Example:
        >>> likely_columns(["compound", "cell_line", "conc_nM", "hours"])
        {'drug': 'compound', 'cell_line': 'cell_line', 'dose_value': 'conc_nM', 'time': 'hours'}
    """
    found = {}
    for what, words in PUBLIC_WORDS.items():
        own = [name for name in present if name in NAMES[what]]
        likely = own or [name for name in present if re.fullmatch(words, name.lower())]
        if likely:
            found[what] = likely[0]
    return found


class TreatmentColumns:
    """The columns of a table of treatments, found by their names.

    Args:
        record: What the table is of, named in errors.
        table: One row a sample.
        columns: One of ``NAMES`` -> the file's name, for those that differ, e.g. ``{"drug": "compound"}``.
        rows: Names of the rows [n].
        unread: What of ``NAMES`` the reader has no use for.

    Raises:
        InputError: A key of ``columns`` that is no such name or stands beside another one for the same, a column that
            is not there, or two columns for the same that differ.
    """

    def __init__(
        self,
        record: str,
        table: pd.DataFrame,
        columns: Mapping[str, str],
        rows: np.ndarray,
        unread: Collection[str] = (),
    ) -> None:
        self.record, self.table, self.rows = record, table, rows
        known = [name for what, names in NAMES.items() if what not in unread for name in names]
        for key in columns:
            if key not in known:
                raise InputError(f"{record}: no internal column {key!r}; the nearest are {near(key, known) or known}")
        self.named = {what: self._find(columns, what) for what in NAMES if what not in unread}

    def refuse_missing(self, wanted: Collection[str], either: Collection[str] = ()) -> None:
        """Raise one error that names all columns of ``wanted`` that the table lacks, and ``either`` if it has none."""
        lacking = [" or ".join(map(repr, NAMES[what])) for what in wanted if self.named[what] is None]
        if either and not any(self.named[what] for what in either):
            lacking.insert(0, " or ".join(repr(name) for what in either for name in NAMES[what]))
        if lacking:
            present = [str(column) for column in self.table.columns]
            nearest = [hit for what in wanted if self.named[what] is None for hit in near(what, present)]
            likely = {what: name for what, name in likely_columns(present).items() if self.named.get(what, "") is None}
            named = ", ".join(f"{what}: {name}" for what, name in likely.items()) or "INTERNAL: NAME"
            raise InputError(
                f"{self.record} lacks {len(lacking)} column(s): {', '.join(lacking)}; it has {some(present, 12)}"
                + (f", the nearest are {nearest}" if nearest else "")
                + f"; name yours with columns={{{named}}}"
            )

    def texts(self, what: str) -> np.ndarray:
        """A column as text [n], empty where a cell or the column is missing."""
        return np.array(text_cells(self.table, self.named[what] or ""), dtype=str)

    def amounts(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Doses in µM and times in h, float32 [n] each, and what was assumed of their units."""
        found, assumed, odd = [], [], []
        for what, unit, quantity in (("dose_value", "dose_unit", DOSE), ("time", "time_unit", TIME)):
            try:
                values, note = amounts(self.rows, self.table[self.named[what]], self.texts(unit), quantity)
            except InputError as error:
                odd.append(str(error))
                continue
            found.append(values)
            assumed += [note] if note else []
        if odd:
            raise InputError(f"{self.record}: {'. '.join(odd)}")
        return found[0], found[1], tuple(assumed)

    def _find(self, columns: Mapping[str, str], what: str) -> str | None:
        """The file's name of a column, none where it has no such column."""
        present = [str(column) for column in self.table.columns]
        mapped = {columns[name] for name in NAMES[what] if columns.get(name) is not None}
        if len(mapped) > 1:
            raise InputError(f"{self.record}: columns names {some(sorted(mapped))} for {what}; name one")
        for name in mapped:
            if name not in present:
                raise InputError(f"{self.record}: no column {name!r}; the nearest are {near(name, present) or present}")
            return name
        found = [name for name in NAMES[what] if name in present]
        if len(found) > 1 and text_cells(self.table, found[0]) != text_cells(self.table, found[1]):
            raise InputError(
                f"{self.record} has the columns {some(found)}, which both tell the {what} and differ; say which one "
                f"counts: columns={{{what}: {found[0]}}}"
            )
        return found[0] if found else None
