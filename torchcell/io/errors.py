"""``InputError``, the one error that bad input raises, and the checks that raise it.

Nothing heavy is imported at its head: every command line needs it before it knows what it will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


SHORT = 8
"""Letters below which a name with a digit or a hyphen is taken for a gene's, where one letter makes another gene."""


_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal or turn the direction of writing; all but tab and end of line."""


def readable(text: object) -> str:
    """A text that may come out of a file of others, for the terminal: what steers it is shown, and does nothing.

    Example:
        >>> readable("TP53\\x1b[2J")
        'TP53\\\\x1b[2J'
    """
    return _UNREADABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """A ``readable`` text whose ends of lines are shown too: a name could write a line under ours, as a verdict.

    Example:
        >>> one_line("TP53\\nbetter")
        'TP53\\\\nbetter'
    """
    return readable(text).replace("\n", "\\n")


LONGEST = 60
"""Letters of a word that is looked for; to compare two takes steps by the product of theirs."""
STEPS = 5 * 10**7
"""Such steps at most for a word, which is some seconds: enough for 200,000 names of 15 letters."""


class InputError(ValueError):
    """Bad input by the person at the keyboard; the message alone must be enough to mend it, and is ``readable``."""

    def __init__(self, message: object = "") -> None:
        super().__init__(readable(message))


def some(items: Iterable[object], most: int = 5) -> str:
    """Name the first few ``items`` and count the rest, e.g. ``'YAL001C', 'YAL002W' and 7 more``."""
    listed = [repr(str(item)) for item in items]
    named = ", ".join(listed[:most])
    return named if len(listed) <= most else f"{named} and {len(listed) - most} more"


def near(word: str, valid: Sequence[str], most: int = 3) -> list[str]:
    """The valid names that ``word`` may have been meant for, best first.

    Those that differ in case, blanks, ``_``, ``-`` or ``.`` alone come first. Then come those that at most one slip in
    three letters leads to (a letter more, less, changed, or two exchanged); of a dotted name the last part counts too.
    No slip is assumed where one sign makes another thing: in digits, in words of up to three letters, and in names
    shorter than eight letters that hold a digit or a hyphen (FOXF1, HLA-A).
    Last come names of which ``word`` is a part, and those with the same first word (dose_value, dose_um).

    Example:
        >>> near("learning_rte", ["learning_rate", "model.learning_rate", "layers"])
        ['learning_rate', 'model.learning_rate']
        >>> near("FOXF1", ["FOXS1", "foxf1"])
        ['foxf1']
    """
    plain, folded = _plain(word), word.lower()
    same = [name for name in valid if name != word and _plain(name) == plain]
    first = folded.partition("_")[0]
    parts = [
        name
        for name in valid
        if name not in same
        and (folded in _words(name) or name.lower().startswith(f"{first}_") or first == name.lower())
    ]
    digits = re.sub(r"\D", "", word)
    valid = valid[: STEPS // max(len(word), 1) ** 2]
    if not 4 <= len(word) <= LONGEST or ((digits or "-" in word) and len(word) < SHORT):
        return [*same, *parts][:most]
    tail = folded.rpartition(".")[2]
    found: list[tuple[int, int, str]] = []
    for i, name in enumerate(dict.fromkeys(valid)):
        if name in same or re.sub(r"\D", "", name) != digits:
            continue
        whole = _slips(folded, name.lower())
        part = _slips(tail, name.lower().rpartition(".")[2])
        if max(whole, part) >= 0:
            found.append((min(n for n in (whole, part) if n >= 0), i, name))
    slips = [name for _, _, name in sorted(found)]
    return list(dict.fromkeys([*same, *slips, *parts]))[:most]


def _words(name: str) -> list[str]:
    """The words of a name, with the numbers at their ends and without."""
    whole = re.split(r"[\s_.-]", name.lower())
    return [*whole, *(word.rstrip("0123456789") for word in whole)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name.lower())


def _slips(word: str, name: str) -> int:
    """Slips between two names; -1 where they are more than one in three letters."""
    most = len(word) // 3
    if abs(len(word) - len(name)) > most or len(set(word) - set(name)) > most or not name:
        return -1
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(word, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(name, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == name[j - 2] and word[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return -1
    return row[-1] if row[-1] <= most else -1


def as_positions(index: np.ndarray) -> np.ndarray:
    """Integer positions, int64, for integers or a mask."""
    import numpy as np

    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)


def refuse(record: str, ids: np.ndarray | Sequence[str], what: str, remedy: str) -> None:
    """Raise if any ``ids`` are given: they name the samples with ``what``."""
    if len(ids):
        raise InputError(f"{record}: {len(ids)} sample(s) with {what}: {some(ids)}; {remedy}")


def refuse_repeats(record: str, names: np.ndarray, what: str, remedy: str = "make them unique") -> None:
    """Raise if a name stands twice."""
    import numpy as np

    from torchcell.io.fingerprint import may_repeat, text_hashes

    if not may_repeat(text_hashes(names)):  # ten times faster than a sort of texts, and without a copy of them
        return
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{record}: {what} used twice: {some(unique[counts > 1])}; {remedy}")


def refuse_shapes(record: str, arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise if an array has another shape than expected; an array that is None is left alone."""
    import numpy as np

    for name, shape in expected.items():
        value = arrays[name]
        if value is not None and np.shape(value) != shape:
            raise InputError(f"{record}: {name} has shape {np.shape(value)}, expected {shape}")


def table_column(record: str, table: pd.DataFrame, name: str) -> pd.Series:
    """One column of a table; a missing one is an error with the nearest names."""
    if name not in table.columns:
        present = [str(c) for c in table.columns]
        raise InputError(f"{record}: no column {name!r}; the nearest are {near(name, present) or present}")
    return table[name]


def column(record: str, table: pd.DataFrame, name: str) -> np.ndarray:
    """The same as an array."""
    return table_column(record, table, name).to_numpy()


def texts(values: np.ndarray) -> np.ndarray:
    """Values as text; a missing one (None, NaN, pandas' NA) becomes the empty text."""
    import numpy as np
    import pandas as pd

    from torchcell.io.ceiling import refuse_wide

    missing = pd.isna(values).tolist()
    found = ["" if none else str(value) for value, none in zip(values, missing, strict=True)]
    lengths = [len(text) for text in found]
    refuse_wide("the texts", len(found), max(lengths, default=0), sum(lengths))
    return np.array(found, dtype=str)


def flags(record: str, name: str, values: np.ndarray) -> np.ndarray:
    """Values as bool: bool, 0/1, or the texts true and false in any case; anything else is refused."""
    import numpy as np
    import pandas as pd

    if missing := int(pd.isna(values).sum()):
        raise InputError(f"{record}: {name} is missing in {missing} row(s); it must be true or false")
    read = {value: _FLAGS.get(str(value).strip().lower()) for value in set(values.tolist())}
    if odd := sorted(str(value) for value, flag in read.items() if flag is None):
        raise InputError(
            f"{record}: {name} holds {some(odd)}; it must be true or false: write true and false, or 1 and 0"
        )
    return np.array([read[value] for value in values.tolist()], dtype=bool)


_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
