"""Doses and times as people write them: ``10``, ``10 µM``, ``500 nM``, ``24 h``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from torchcell.data.errors import InputError, some
from torchcell.data.tables import MISSING

TO_MICROMOLAR: dict[str, float] = {"": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "mm": 1e3, "m": 1e6}
"""Unit in small letters, µ as u -> how many µM it is; without a unit it is µM."""
TO_HOURS: dict[str, float] = {"": 1.0, "h": 1.0, "hr": 1.0, "hours": 1.0, "min": 1 / 60, "d": 24.0, "days": 24.0}
LEAST_DOSE = 1e-3
"""µM; smaller doses, a vehicle's 0 among them, count as this one where a logarithm is taken."""
_NUMBER_UNIT = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s&]*)\s*")


def quantities(values: np.ndarray, units: np.ndarray, factor: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of texts, and which can't be read.

    Args:
        values: Texts [n], empty where there is none; a unit may follow the number.
        units: The unit of each where it stands in another column [n], else empty.
        factor: Unit -> its size, e.g. ``TO_MICROMOLAR``.

    Returns:
        float64 [n], NaN where there is none; bool [n], true where there is a text but no number with a known unit.
    """
    pairs = list(zip(values.tolist(), units.tolist(), strict=True))
    known = {pair: _read(*pair, factor) for pair in set(pairs)}
    numbers = np.array([known[pair] for pair in pairs], dtype=np.float64)
    return numbers, np.isnan(numbers) & (values != "")


def read_quantities(
    record: str, ids: np.ndarray, name: str, cells: np.ndarray, factor: Mapping[str, float]
) -> np.ndarray:
    """Numbers of a column of texts, float32 [n], NaN where a cell is empty or says that there is none.

    Args:
        record: What the column is of, named in the error.
        ids: Names of the rows [n].
        name: Of the column.
        cells: Texts [n]; a unit may follow the number.
        factor: Unit -> its size, e.g. ``TO_MICROMOLAR``.

    Raises:
        InputError: Texts that are no number with a known unit, with their rows.
    """
    given = np.where(np.isin(np.char.lower(cells), MISSING), "", cells)
    numbers, odd = quantities(given, np.full(len(given), ""), factor)
    if odd.any():
        told = [f"{row}: {cell}" for row, cell in zip(ids[odd], cells[odd], strict=True)]
        units = ", ".join(unit for unit in factor if unit)
        raise InputError(
            f"{record}: {name} holds what is no number with a known unit: {some(told)}; the units are {units}"
        )
    return numbers.astype(np.float32)


def _read(value: str, unit: str, factor: Mapping[str, float]) -> float:
    split = _NUMBER_UNIT.fullmatch(value)
    if split is None:
        return np.nan
    named = (split[2] or unit).lower().replace("µ", "u").replace("μ", "u")
    try:
        return float(split[1]) * factor[named]
    except (ValueError, KeyError):
        return np.nan
