"""What is written about a drug, its mechanism and its targets, as a vector; for data that tells no structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchcell.data.errors import InputError, near, some
from torchcell.data.molecules import Molecules, drug_structures
from torchcell.data.response import Response


@dataclass(frozen=True)
class Annotation:
    """One column a term, 1 where the drug has it; a drug without any has no vector.

    Args:
        columns: Of ``Response.columns``, texts with one term or several.
        separator: Between the terms of one text.
        least: Drugs that must share a term: what one drug alone has tells nothing of another.
        vocabulary: Terms as ``column:term``, of a model that was trained; by default those of the record.
    """

    columns: Sequence[str] = ("moa", "targets")
    separator: str = "|"
    least: int = 2
    vocabulary: Sequence[str] | None = None

    def __call__(self, response: Response) -> Molecules:
        """One row a distinct drug of ``response``, sorted by name.

        Raises:
            InputError: The record has no such column, or no term that enough drugs share.
        """
        terms = self._terms(response)
        names, smiles = drug_structures(response)
        if self.vocabulary is None:
            shared = Counter(term for name in names.tolist() for term in terms[name])
            vocabulary = sorted(term for term, count in shared.items() if count >= self.least)
        else:
            vocabulary = [str(term) for term in self.vocabulary]
        if not vocabulary:
            raise InputError(
                f"{response.name}: no term of {some(self.columns)} is shared by {self.least} drugs; lower "
                "data.molecules.least, or take features of the structures"
            )
        place = {term: column for column, term in enumerate(vocabulary)}
        vectors = np.zeros((len(names), len(vocabulary)), dtype=np.float32)
        for row, name in enumerate(names.tolist()):
            vectors[row, [place[term] for term in terms[name] if term in place]] = 1
        features = {
            "_target_": "torchcell.data.molecule_annotation.Annotation",
            "columns": [str(column) for column in self.columns],
            "separator": self.separator,
            "least": self.least,
            "vocabulary": vocabulary,
        }
        return Molecules(names, smiles, vectors, np.asarray(vectors.any(1)), features)

    def _terms(self, response: Response) -> dict[str, set[str]]:
        """Terms of each drug, those of all its samples together."""
        terms: dict[str, set[str]] = {name: set() for name in np.unique(response.drug).tolist()}
        for column in self.columns:
            if column not in response.columns:
                held = list(response.columns)
                raise InputError(f"{response.name}: no column {column!r}; the nearest are {near(column, held) or held}")
            for name, text in set(zip(response.drug.tolist(), response.columns[column].tolist(), strict=True)):
                terms[name] |= {f"{column}:{term.strip()}" for term in text.split(self.separator) if term.strip()}
        return terms
