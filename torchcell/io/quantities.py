"""Doses and times as people write them: ``10``, ``10 µM``, ``500 nM``, ``24 h``, with a unit beside or none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchcell.io.errors import InputError, some
from torchcell.io.tables import MISSING, text_cells

if TYPE_CHECKING:
    import pandas as pd


TO_MICROMOLAR: dict[str, float] = {
    "": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "mm": 1e3, "m": 1e6,
    "umol/l": 1.0, "nmol/l": 1e-3, "pmol/l": 1e-6, "mmol/l": 1e3, "mol/l": 1e6,
    "micromolar": 1.0, "nanomolar": 1e-3, "picomolar": 1e-6, "millimolar": 1e3, "molar": 1e6,
}  # fmt: skip
"""Unit in small letters, µ as u -> how many µM it is; without a unit it is µM."""
TO_HOURS: dict[str, float] = {
    "": 1.0, "h": 1.0, "hr": 1.0, "hrs": 1.0, "hour": 1.0, "hours": 1.0,
    "min": 1 / 60, "mins": 1 / 60, "minute": 1 / 60, "minutes": 1 / 60,
    "d": 24.0, "day": 24.0, "days": 24.0,
}  # fmt: skip
HIGHEST_DOSE = 1e5
"""µM; few drugs dissolve to more than 100 mM, so higher doses are worth a note."""
LEAST_DOSE = 1e-3
"""µM; smaller doses, a vehicle's 0 among them, count as this one where a logarithm is taken."""
_NUMBER_UNIT = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s&]*)\s*")
_NAME_UNIT = re.compile(r"(?:.*[\s_.(\[])?([a-z/]+)[)\]]?")


class Quantity(NamedTuple):
    """What a column measures.

    Attributes:
        factor: Unit -> its size, e.g. ``TO_MICROMOLAR``.
        assumed: The unit of a number that has none.
        units: The units, as an error names them.
        remedy: What an error about another unit says further.
    """

    factor: Mapping[str, float]
    assumed: str
    units: str
    remedy: str = ""


DOSE = Quantity(
    TO_MICROMOLAR, "µM", "pM, nM, µM, mM and M", "; convert a mass (mg/ml) or a share (%) to one of them first"
)
TIME = Quantity(TO_HOURS, "h", "min, h and d")


def quantities(values: np.ndarray, units: np.ndarray, factor: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of texts, and which can't be read.

    Args:
        values: Texts [n], empty where there is none; a unit may follow the number.
        units: The unit of each where it stands in another column [n], else empty.
        factor: Unit -> its size, e.g. ``TO_MICROMOLAR``.

    Returns:
        float64 [n], NaN where there is none; bool [n], true where there is a text but no number with a known unit, or
        two units that differ.
    """
    pairs = list(zip(values.tolist(), units.tolist(), strict=True))
    known = {pair: _read(*pair, factor) for pair in set(pairs)}
    numbers = np.array([known[pair] for pair in pairs], dtype=np.float64)
    return numbers, np.isnan(numbers) & (values != "")


def amounts(rows: np.ndarray, values: pd.Series, units: np.ndarray, quantity: Quantity) -> tuple[np.ndarray, str]:
    """Numbers of a column in our unit, float32 [n], NaN where a cell is empty; and what was assumed or is odd.

    The unit of a row is that in its cell, else that of the column of units, else that at the end of the column's name
    (``dose_nM``), else the one that is assumed.

    Args:
        rows: Names of the rows [n].
        values: The column: numbers, or texts that a unit may follow.
        units: Texts [n], empty where no unit stands in a column of its own.
        quantity: What is measured.

    Raises:
        InputError: Cells that are no number with a known unit, or have two units that differ: all of them with their
            rows, a text once.
    """
    name = str(values.name)
    cells = np.array(text_cells(values.to_frame(name), name), dtype=str)
    cells, units = (np.where(np.isin(np.char.lower(texts), MISSING), "", texts) for texts in (cells, units))
    of_name = _unit_of_name(name, quantity.factor)
    own = np.where(without_unit(cells, units), of_name, units)
    numbers, odd = quantities(cells, own, quantity.factor)
    if odd.any():
        first: dict[str, str] = {}  # what is odd, a unit once -> where it stands first
        for row, cell, unit in zip(rows[odd].tolist(), cells[odd].tolist(), units[odd].tolist(), strict=True):
            split = _NUMBER_UNIT.fullmatch(cell)
            whole = f"{cell} ({unit})" if unit and split and split[2] else f"{cell} {unit}".strip()
            first.setdefault(f"{split[2]} {unit}" if split else whole, f"{row}: {whole}")
        raise InputError(
            f"{name} holds what is no number with one known unit in {int(odd.sum()):,} row(s): "
            f"{some(first.values(), 12)}; the units are {quantity.units}{quantity.remedy}"
            + _causes(cells[odd].tolist(), units[odd].tolist())
        )
    said = [assumed_unit(name, numbers, without_unit(cells, own), quantity)]
    if quantity is DOSE and (n := int((numbers > HIGHEST_DOSE).sum())):
        said.append(f"{name} is above 100 mM in {n:,} row(s), up to {np.nanmax(numbers):.4g} µM: is the unit right?")
    return numbers.astype(np.float32), "; ".join(filter(None, said))


def _causes(cells: list[str], units: list[str]) -> str:
    """What to do about cells that can't be read, where it can be told; empty elsewhere."""
    both = any(
        unit and (split := _NUMBER_UNIT.fullmatch(cell)) and split[2] for cell, unit in zip(cells, units, strict=True)
    )
    comma = any(re.match(r"\s*[-+]?\d+,\d", cell) for cell in cells)
    said = ["a cell and its column of units tell two units: keep one"] if both else []
    return "".join(f"; {one}" for one in [*said, *(["write a decimal point, not a comma"] if comma else [])])


def assumed_unit(name: str, numbers: np.ndarray, bare: np.ndarray, quantity: Quantity) -> str:
    """What was assumed of the numbers without a unit, in a sentence; empty where there is none but zeros.

    Args:
        name: Of the column.
        numbers: As read [n]; NaN where there is none. A zero needs no unit.
        bare: Whether a number has no unit, bool [n].
        quantity: What is measured.
    """
    given = ~np.isnan(numbers) & (numbers != 0)
    n = int((bare & given).sum())
    where = "has no unit" if n == given.sum() else f"has no unit in {n:,} row(s)"
    return f"{name} {where}: taken as {quantity.assumed}" if n else ""


def without_unit(cells: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Whether a unit neither follows the number of a cell nor stands in another column, bool [n]."""
    has = {cell: bool((split := _NUMBER_UNIT.fullmatch(cell)) and split[2]) for cell in set(cells.tolist())}
    return (units == "") & ~np.array([has[cell] for cell in cells.tolist()], dtype=bool)


def _unit_of_name(name: str, factor: Mapping[str, float]) -> str:
    """The unit at the end of a column's name, as in ``dose_nM`` or ``time (h)``; empty where there is none."""
    split = _NAME_UNIT.fullmatch(_folded(name))
    return split[1] if split and split[1] in factor and split[1] != "m" else ""  # dose_m may be anything


def _folded(unit: str) -> str:
    """A unit in small letters, either sign for micro as u."""
    return unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")


def _read(value: str, unit: str, factor: Mapping[str, float]) -> float:
    split = _NUMBER_UNIT.fullmatch(value)
    if split is None:
        return np.nan
    sizes = {factor.get(_folded(one)) for one in (split[2], unit) if one} or {factor[""]}
    try:
        number = float(split[1])
    except ValueError:
        return np.nan
    (size,) = sizes if len(sizes) == 1 else (None,)
    return np.nan if size is None else number * size
