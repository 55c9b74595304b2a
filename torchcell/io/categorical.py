"""``Categorical``: texts that repeat, held as a number each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Categorical:
    """n texts of few kinds: 4 bytes each, where an array of texts needs 4 a letter of the longest.

    Where numpy wants an array it gets the texts; ``==`` compares with a text or with texts, one by one.

    Attributes:
        names: The different texts, sorted, each of them used [k].
        codes: Position of each text in ``names``, int32 [n].

    Example:
        >>> line = Categorical.of(["K562", "A549", "K562"])
        >>> line.names.tolist(), line.codes.tolist(), (line == "K562").tolist(), line[1:].tolist()
        (['A549', 'K562'], [1, 0, 1], [True, False, True], ['A549', 'K562'])
    """

    names: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, values: Any) -> Categorical:
        """Texts in any form: an array, a list, a pandas column, or such an object itself."""
        if isinstance(values, Categorical):
            return values
        import pandas as pd

        # pandas' hash table of objects is several times faster than a sort of texts
        codes, names = pd.factorize(np.asarray(values, dtype=str).astype(object))
        return cls.coded(np.asarray(names, dtype=str), codes)

    @classmethod
    def coded(cls, names: Any, codes: np.ndarray) -> Categorical:
        """Texts ``names[codes]``; names may repeat, be unsorted, or be used by none."""
        used = np.zeros(len(names), dtype=bool)
        used[codes] = True
        texts = np.asarray(names, dtype=str)
        different, place = np.unique(texts[used], return_inverse=True)
        row = np.zeros(len(texts), dtype=np.int32)
        row[used] = place
        return cls(different, row[codes])

    def renamed(self, change: Callable[[str], str]) -> Categorical:
        """Each text changed, a repeated one once."""
        return self.coded([change(name) for name in self.names.tolist()], self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array of texts."""
        return self.codes.shape

    def __getitem__(self, index: Any) -> Any:
        """One text for a number; for a slice, positions or a mask those texts."""
        if isinstance(index, int | np.integer):
            return self.names[self.codes[index]]
        return self.coded(self.names, self.codes[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        texts = self.names[self.codes] if len(self.names) else np.empty(0, dtype=str)
        return texts if dtype is None else texts.astype(dtype)

    def astype(self, kind: Any) -> np.ndarray:
        """The texts as an array."""
        return np.asarray(self).astype(kind)

    def copy(self) -> np.ndarray:
        """The texts as an array of its own."""
        return np.asarray(self)

    def tolist(self) -> list[str]:
        """The texts as a list."""
        return np.asarray(self).tolist()

    def isin(self, texts: Any) -> np.ndarray:
        """Whether each is one of ``texts``, bool [n]."""
        return np.isin(self.names, list(texts))[self.codes]

    def __eq__(self, other: object) -> Any:
        if isinstance(other, str):
            return (self.names == other)[self.codes] if len(self.names) else np.zeros(0, dtype=bool)
        return np.asarray(self) == np.asarray(other)

    def __ne__(self, other: object) -> Any:
        return ~(self == other)

    __hash__ = None  # type: ignore[assignment]
