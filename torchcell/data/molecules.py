"""``Molecules``: a vector for each drug of a record, and which drugs have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.data.errors import InputError, near, some
from torchcell.data.fingerprint import record_fingerprint
from torchcell.data.parent_molecule import parent_key
from torchcell.data.structures import canonical, refuse_rejected

if TYPE_CHECKING:
    from torchcell.data.response import Response


@dataclass(frozen=True, eq=False)
class Molecules:
    """D drugs and their vectors.

    Attributes:
        id: Names, each once, as in ``Response.drug`` [D].
        smiles: Canonical SMILES [D], empty where unknown.
        vectors: float32 [D, F]; a row of zeros where there is none.
        known: Whether a drug has a vector, bool [D].
        features: What makes vectors of further molecules: a plain mapping with ``_target_`` and its arguments.
        graphs: Atoms and bonds, see ``torchcell.data.molecule_graphs``; none where no model reads them.
        borrowed: Drug -> the molecule whose vector stands in for its own, where a table was told to do so.
    """

    id: np.ndarray
    smiles: np.ndarray
    vectors: np.ndarray
    known: np.ndarray
    features: Mapping[str, Any] = field(default_factory=dict)
    graphs: Mapping[str, np.ndarray] | None = None
    borrowed: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def fingerprint(self) -> str:
        """A hash over the molecules and their vectors, not over what makes those of others (``features``)."""
        return record_fingerprint(self, ("features",))

    def positions(self, drug: np.ndarray) -> np.ndarray:
        """Row of each name, int64 [n]; an unknown name is an error with near matches."""
        place = {name: row for row, name in enumerate(self.id.tolist())}
        lacking = [name for name in np.unique(drug).tolist() if name not in place]
        if lacking:
            hint = near(lacking[0], list(place)) or list(place)[:5]
            raise InputError(
                f"molecules without a row in the table: {some(lacking)}; the nearest to the first are {hint}"
            )
        return np.array([place[name] for name in drug.tolist()], dtype=np.int64)

    def joined(self, further: Molecules) -> Molecules:
        """These molecules, then those of ``further``, made by the same features.

        Raises:
            InputError: Vectors of another width, graphs on one side only, or a name on both.
        """
        if self.vectors.shape[1] != further.vectors.shape[1] or (self.graphs is None) != (further.graphs is None):
            raise InputError(
                f"molecules with {self.vectors.shape[1]} features {'and' if self.graphs else 'without'} graphs and "
                f"others with {further.vectors.shape[1]} {'and' if further.graphs else 'without'} can't be joined; "
                "make both alike"
            )
        twice = np.intersect1d(self.id, further.id)
        if len(twice):
            raise InputError(f"molecules that stand in both tables: {some(twice)}; name each once")
        graphs = None
        if self.graphs is not None and further.graphs is not None:
            from torchcell.data.molecule_graphs import join_graphs

            graphs = join_graphs(self.graphs, further.graphs)
        return Molecules(
            np.concatenate([self.id, further.id]),
            np.concatenate([self.smiles, further.smiles]),
            np.concatenate([self.vectors, further.vectors]),
            np.concatenate([self.known, further.known]),
            self.features,
            graphs,
            {**self.borrowed, **further.borrowed},
        )


def drug_structures(response: Response) -> tuple[np.ndarray, np.ndarray]:
    """The distinct drugs of a record, sorted, and the canonical SMILES of each, empty where unknown [D] each.

    Of several salts or tautomers of one molecule a SMILES without a counterion, the first by the alphabet, is taken.

    Raises:
        InputError: SMILES that rdkit rejects, all named with their drugs; a drug with several molecules.
    """
    held: dict[str, set[str]] = {name: set() for name in np.unique(response.drug).tolist()}
    if response.smiles is not None:
        told = sorted(set(zip(response.drug.tolist(), response.smiles.tolist(), strict=True)))
        refuse_rejected(response.name, told)
        for name, text in told:
            if text:
                held[name].add(canonical(text))
    several = {name: found for name, found in held.items() if len(found) > 1}
    torn = sorted(name for name, found in several.items() if len({parent_key(text, name) for text in found}) > 1)
    if torn:
        raise InputError(
            f"{response.name}: {len(torn)} drug(s) with several structures: {some(torn)} (of the first: "
            f"{some(sorted(held[torn[0]]))}); give each structure a drug name of its own, or, of a file of yours, set "
            "data.record.conflicting_smiles=first or majority"
        )
    usual = [min(found, key=lambda text: ("." in text, text), default="") for found in held.values()]
    return np.array(list(held)), np.array(usual)


def coverage(response: Response, part: np.ndarray) -> dict[str, tuple[int, int]]:
    """Drugs with a vector of their own, and all drugs, in each part of a split.

    Args:
        response: With its molecules.
        part: Part of each sample [n].
    """
    drug, molecules = response.drug_index, response.molecules
    assert molecules is not None
    own = molecules.known & ~np.isin(molecules.id, list(molecules.borrowed))
    found = {str(name): np.unique(drug[part == name]) for name in dict.fromkeys(part.tolist())}
    return {name: (int(own[rows].sum()), len(rows)) for name, rows in found.items()}


def borrowings(molecules: Molecules) -> list[str]:
    """``drug from molecule`` for each drug whose vector is another's."""
    return [f"{drug} from {owner}" for drug, owner in molecules.borrowed.items()]


def tanimoto(a_NF: np.ndarray, b_MF: np.ndarray) -> np.ndarray:
    """Similarity a.b / (a.a + b.b - a.b) of all pairs of rows, float32 [N, M]; of bits: shared over set in either.

    Two rows of zeros share nothing: 0.
    """
    product = a_NF @ b_MF.T
    union = np.square(a_NF).sum(1)[:, None] + np.square(b_MF).sum(1) - product
    return np.divide(product, union, out=np.zeros_like(product), where=union > 0).astype(np.float32)
