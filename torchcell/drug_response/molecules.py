"""Molecules of a record: structures, fingerprints, graphs, vectors of a user's table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from torchcell.drug_response.drug_identity import parent, parent_key
from torchcell.drug_response.record import Response
from torchcell.drug_response.structures import SKELETON, canonical, inchikey, parsed, refuse_rejected
from torchcell.io import paths
from torchcell.io.configurable import configurable
from torchcell.io.embeddings import read_embeddings, read_npz
from torchcell.io.errors import InputError, near, some
from torchcell.io.fingerprint import record_fingerprint
from torchcell.io.matrices import LARGEST


@dataclass(frozen=True, eq=False)
class Molecules:
    """D drugs and their vectors.

    Attributes:
        id: Names, each once, as in ``Response.drug`` [D].
        smiles: Canonical SMILES [D], empty where unknown.
        vectors: float32 [D, F]; a row of zeros where there is none.
        known: Whether a drug has a vector, bool [D].
        features: What makes vectors of further molecules: a plain mapping with ``_target_`` and its arguments.
        graphs: Atoms and bonds, see ``torchcell.drug_response.molecules``; none where no model reads them.
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
        row_of = {name: row for row, name in enumerate(self.id.tolist())}
        lacking = [name for name in np.unique(drug).tolist() if name not in row_of]
        if lacking:
            hint = near(lacking[0], list(row_of)) or list(row_of)[:5]
            raise InputError(
                f"molecules without a row in the table: {some(lacking)}; the nearest to the first are {hint}"
            )
        return np.array([row_of[name] for name in drug.tolist()], dtype=np.int64)

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
    forms: dict[str, set[str]] = {name: set() for name in np.unique(response.drug).tolist()}
    if response.smiles is not None:
        pairs = sorted(set(zip(response.drug.tolist(), response.smiles.tolist(), strict=True)))
        refuse_rejected(response.name, pairs)
        for name, text in pairs:
            if text:
                forms[name].add(canonical(text))
    several = {name: found for name, found in forms.items() if len(found) > 1}
    torn = sorted(name for name, found in several.items() if len({parent_key(text, name) for text in found}) > 1)
    if torn:
        raise InputError(
            f"{response.name}: {len(torn)} drug(s) with several structures: {some(torn)} (of the first: "
            f"{some(sorted(forms[torn[0]]))}); give each structure a drug name of its own, or, of a file of yours, set "
            "data.record.conflicting_smiles=first or majority"
        )
    usual = [min(found, key=lambda text: ("." in text, text), default="") for found in forms.values()]
    return np.array(list(forms)), np.array(usual)


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


@configurable
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
        column_of = {term: column for column, term in enumerate(vocabulary)}
        vectors = np.zeros((len(names), len(vocabulary)), dtype=np.float32)
        for row, name in enumerate(names.tolist()):
            vectors[row, [column_of[term] for term in terms[name] if term in column_of]] = 1
        features = {
            "_target_": "torchcell.drug_response.molecules.Annotation",
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
                present = list(response.columns)
                raise InputError(
                    f"{response.name}: no column {column!r}; the nearest are {near(column, present) or present}"
                )
            for name, text in set(zip(response.drug.tolist(), response.columns[column].tolist(), strict=True)):
                terms[name] |= {f"{column}:{term.strip()}" for term in text.split(self.separator) if term.strip()}
        return terms


@configurable
@dataclass(frozen=True)
class Morgan:
    """Fingerprint of each drug; one without a SMILES has none.

    Args:
        bits: Width F.
        radius: Bonds around an atom; 2 is ECFP4.
    """

    bits: int = 2048
    radius: int = 2

    def __call__(self, response: Response) -> Molecules:
        """One row a distinct drug of ``response``, sorted by name."""
        names, smiles = drug_structures(response)
        features = {"_target_": "torchcell.drug_response.molecules.Morgan", "bits": self.bits, "radius": self.radius}
        vectors = self.vectors(smiles.tolist(), names.tolist())
        return Molecules(names, smiles, vectors, smiles != "", features)

    def vectors(self, smiles: Sequence[str], names: Sequence[str] | None = None) -> np.ndarray:
        """Bits of each structure, float32 [D, F]; zeros for the empty text.

        Raises:
            InputError: A SMILES that rdkit rejects, with the drug of ``names`` that has it.
        """
        from rdkit.Chem import rdFingerprintGenerator

        if self.bits < 1 or self.radius < 0:
            raise InputError(f"Morgan fingerprints of {self.bits} bits and radius {self.radius}: need >= 1 and >= 0")
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=self.radius, fpSize=self.bits)
        found = np.zeros((len(smiles), self.bits), dtype=np.float32)
        for row, text in enumerate(smiles):
            if text:
                found[row] = generator.GetFingerprintAsNumPy(parsed(text, names[row] if names else ""))
        return found


@configurable
@dataclass(frozen=True)
class MoleculeGraphs:
    """Graph of each drug, beside its Morgan fingerprint, which the baselines read.

    Args:
        bits: Width of the fingerprint.
        radius: Of the fingerprint.
    """

    bits: int = 2048
    radius: int = 2

    def __call__(self, response: Response) -> Molecules:
        """One row a distinct drug of ``response``, sorted by name."""
        made = Morgan(self.bits, self.radius)(response)
        features = {**made.features, "_target_": "torchcell.drug_response.molecules.MoleculeGraphs"}
        graphs = pack_graphs(made.smiles.tolist(), made.id.tolist())
        return replace(made, features=features, graphs=graphs)


def pack_graphs(smiles: Sequence[str], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Graphs of the structures as flat arrays; an empty text is a molecule without atoms.

    Raises:
        InputError: A structure that rdkit rejects, or with an atom that the categories don't know; names the drug.
    """
    from torch_geometric.utils.smiles import from_rdmol

    atoms, bonds, ends = [np.empty((0, 9), np.int64)], [np.empty((0, 3), np.int64)], [np.empty((2, 0), np.int64)]
    n_atoms, n_bonds = [0], [0]
    for row, text in enumerate(smiles):
        if text:
            name = names[row] if names else ""
            try:
                graph = from_rdmol(parsed(text, name))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"drug {name!r}: an atom or bond of {text!r} has no category ({error}); leave the drug out, or "
                    "take fingerprints in place of graphs"
                ) from error
            atoms.append(graph.x.numpy())
            bonds.append(graph.edge_attr.numpy())
            ends.append(graph.edge_index.numpy())
        n_atoms.append(len(atoms[-1]) if text else 0)
        n_bonds.append(len(bonds[-1]) if text else 0)
    return {
        "atom": np.concatenate(atoms),
        "atom_ptr": np.cumsum(n_atoms, dtype=np.int64),
        "bond": np.concatenate(bonds),
        "bond_index": np.concatenate(ends, axis=1),
        "bond_ptr": np.cumsum(n_bonds, dtype=np.int64),
    }


def join_graphs(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The molecules of ``first``, then those of ``second``."""
    joined = {name: np.concatenate([first[name], second[name]]) for name in ("atom", "bond")}
    joined["bond_index"] = np.concatenate([first["bond_index"], second["bond_index"]], axis=1)
    for name in ("atom_ptr", "bond_ptr"):
        joined[name] = np.concatenate([first[name], first[name][-1] + second[name][1:]])
    return joined


KEYS = ("smiles", "inchikey", "inchikey_block", "id")


@configurable
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
        features = {"_target_": "torchcell.drug_response.molecules.MoleculeTable", **vars(self)}
        features["origin"] = self.origin or str(paths.origin())
        return Molecules(names, smiles, found, known, features, borrowed=borrowed)

    def _rows(self) -> tuple[dict[str, int], np.ndarray]:
        """Key -> row, and the vectors, float32 [N, F]."""
        with paths.looking_in(self.origin or paths.origin()):
            path = paths.located(self.path)
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
        """Row of each drug's parent molecule (see ``drug_identity``), or of a salt of it; else -1."""
        if self.key == "smiles":
            row_of_key = {parent(text): row for text, row in reversed([*row_of.items()])} | dict(row_of)
            wanted = [parent(text) if text else "" for text in smiles.tolist()]
        elif self.key in ("inchikey", "inchikey_block"):
            row_of_key = dict(row_of)
            wanted = [parent_key(text) if text else "" for text in smiles.tolist()]
            wanted = [key[:SKELETON] for key in wanted] if self.key == "inchikey_block" else wanted
        else:
            return np.full(len(smiles), -1)
        return np.array([row_of_key.get(key, -1) if key else -1 for key in wanted])

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
