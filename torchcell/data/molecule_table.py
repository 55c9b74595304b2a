"""Vectors of molecules that another program made, such as KPGT, matched to the drugs of a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchcell.data import places
from torchcell.data.embedding_table import read_embeddings, read_npz
from torchcell.data.errors import InputError, near, some
from torchcell.data.matrices import LARGEST
from torchcell.data.molecules import Molecules, drug_structures, tanimoto
from torchcell.data.morgan import Morgan
from torchcell.data.parent_molecule import parent, parent_key
from torchcell.data.response import Response
from torchcell.data.structures import SKELETON, canonical, inchikey, refuse_rejected

KEYS = ("smiles", "inchikey", "inchikey_block", "id")


@dataclass(frozen=True)
class MoleculeTable:
    """Rows of a table, by structure or by name; a drug that is not in it has no vector.

    By structure a salt that the table lacks has the vector of its base, or of another salt of it.

    Args:
        path: npz (no pickles), parquet, csv, or h5ad (``X``).
        key: What names a row: ``smiles`` (any spelling), ``inchikey``, ``inchikey_block`` (its first 14 letters),
            ``id`` (the drug's name), or a column of ``Response.columns``, e.g. ``pert_id``.
        ids: Array or column of the keys; null: ``ids`` of an npz, else ``id``, or the index of an h5ad.
        vectors: Array of the vectors in an npz.
        fallback: Give a drug that is not in the table the vector of the most similar molecule, by Tanimoto on Morgan
            fingerprints, among the table's structures and the record's; ``Molecules.borrowed`` tells which.
        origin: Where a relative ``path`` is looked up after the working directory; a checkpoint holds its run's.
    """

    path: str
    key: str = "smiles"
    ids: str | None = None
    vectors: str = "vectors"
    fallback: bool = False
    origin: str | None = None

    def __call__(self, response: Response) -> Molecules:
        """One row a distinct drug of ``response``, sorted by name.

        Raises:
            InputError: No such file, array or key; a key twice with different vectors; a vector that is not finite or
                all zeros; without ``fallback`` no drug in the table, with it one without a structure.
        """
        row_of, vectors = self._rows()
        names, smiles = drug_structures(response)
        rows = np.array([row_of.get(key, -1) if key else -1 for key in self._keys(response, names, smiles)])
        rows = np.where(rows >= 0, rows, self._of_parents(row_of, smiles))
        known = rows >= 0
        if not known.any() and not self.fallback:
            raise InputError(
                f"{self.path}: none of {len(names):,} drugs of {response.name} is in the table by key={self.key}; its "
                f"keys look like {some(list(row_of)[:3])}"
            )
        found = np.where(known[:, None], vectors[rows], np.float32(0))
        borrowed: dict[str, str] = {}
        if self.fallback and not known.all():
            structures = list(row_of) if self.key == "smiles" else []
            borrowed = _borrow(names, smiles, known, found, structures, vectors[list(row_of.values())])
            known = np.ones(len(names), dtype=bool)
        features = {"_target_": "torchcell.data.molecule_table.MoleculeTable", **vars(self)}
        features["origin"] = self.origin or str(places.origin())
        return Molecules(names, smiles, found, known, features, borrowed=borrowed)

    def _rows(self) -> tuple[dict[str, int], np.ndarray]:
        """Key -> row, and the vectors, float32 [N, F]."""
        with places.looking_in(self.origin or places.origin()):
            path = places.located(self.path)
        npz = path.suffix == ".npz"
        table = read_npz(path, self.ids or "ids", self.vectors) if npz else read_embeddings(path, self.ids or "id")
        unnamed = [f"row {i + 1}" for i in np.flatnonzero(table.node_id == "")]
        if unnamed:
            raise InputError(f"{path}: {len(unnamed)} row(s) without a {self.key}: {some(unnamed)}; leave them out")
        odd = ~(np.abs(table.values) <= LARGEST).all(1) | ~table.values.any(1)
        if odd.any():
            raise InputError(
                f"{path}: {int(odd.sum())} vector(s) that are not finite or all zeros, or beyond {LARGEST:g}: "
                f"{some(table.node_id[odd])}; leave them out of the table"
            )
        if self.key == "smiles":
            refuse_rejected(str(path), [(f"row {i + 1}", text) for i, text in enumerate(table.node_id.tolist())])
        row_of: dict[str, int] = {}
        torn = []
        for row, text in enumerate(table.node_id.tolist()):
            first = row_of.setdefault(self._spelled(text), row)
            if not np.array_equal(table.values[first], table.values[row]):
                torn.append(text)
        if torn:
            raise InputError(
                f"{path}: {len(torn)} row(s) with the {self.key} of another row and a different vector: {some(torn)}; "
                "keep one row of each molecule"
            )
        return row_of, table.values

    def _of_parents(self, row_of: Mapping[str, int], smiles: np.ndarray) -> np.ndarray:
        """Row of each drug's parent molecule (see ``torchcell.data.parent_molecule``), or of a salt of it; else -1."""
        if self.key == "smiles":
            held = {parent(text): row for text, row in reversed([*row_of.items()])} | dict(row_of)
            wanted = [parent(text) if text else "" for text in smiles.tolist()]
        elif self.key in ("inchikey", "inchikey_block"):
            held = dict(row_of)
            wanted = [parent_key(text) if text else "" for text in smiles.tolist()]
            wanted = [key[:SKELETON] for key in wanted] if self.key == "inchikey_block" else wanted
        else:
            return np.full(len(smiles), -1)
        return np.array([held.get(key, -1) if key else -1 for key in wanted])

    def _spelled(self, text: str) -> str:
        """The key of a row as it is compared."""
        if self.key == "smiles":
            return canonical(text)
        return text[:SKELETON] if self.key == "inchikey_block" else text

    def _keys(self, response: Response, names: np.ndarray, smiles: np.ndarray) -> list[str]:
        """The key of each drug, empty where it has none."""
        if self.key == "smiles":
            return smiles.tolist()
        if self.key == "id":
            return names.tolist()
        if self.key in ("inchikey", "inchikey_block"):
            given = _of_drugs(response, response.inchikey)
            texts = zip(names.tolist(), smiles.tolist(), strict=True)
            keys = [given.get(name) or (inchikey(text, name) if text else "") for name, text in texts]
            return [key[:SKELETON] for key in keys] if self.key == "inchikey_block" else keys
        if self.key in response.columns:
            given = _of_drugs(response, response.columns[self.key])
            return [given.get(name, "") for name in names.tolist()]
        valid = [*KEYS, *response.columns]
        raise InputError(f"data.molecules.key={self.key}: the nearest are {near(self.key, valid) or valid}")


def _of_drugs(response: Response, texts: np.ndarray | None) -> dict[str, str]:
    """Drug -> its text, where there is one; the first of several."""
    if texts is None:
        return {}
    return {name: text for name, text in sorted(set(zip(response.drug, texts, strict=True)), reverse=True) if text}


def _borrow(
    names: np.ndarray,
    smiles: np.ndarray,
    known: np.ndarray,
    found: np.ndarray,
    structures: list[str],
    vectors: np.ndarray,
) -> dict[str, str]:
    """Fill rows of ``found`` [D, F] that are not known from the most similar structure; returns drug -> whose."""
    bare = names[~known & (smiles == "")]
    if len(bare):
        raise InputError(
            f"drugs without a structure, so that no similar one can be found: {some(bare)}; set "
            "data.molecules.fallback=false, and data.missing_molecules=learned or drop"
        )
    here = known & (smiles != "")
    pool, owners = [*structures, *smiles[here].tolist()], [*structures, *names[here].tolist()]
    if not pool:
        raise InputError("no molecule of the table has a structure to compare with; set data.molecules.fallback=false")
    values = np.concatenate([vectors[: len(structures)], found[here]])
    morgan, asked = Morgan(), np.flatnonzero(~known)
    like = tanimoto(morgan.vectors(smiles[asked].tolist()), morgan.vectors(pool)).argmax(1)
    found[asked] = values[like]
    return {str(names[row]): owners[best] for row, best in zip(asked.tolist(), like.tolist(), strict=True)}
