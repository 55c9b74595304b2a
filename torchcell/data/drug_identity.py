"""Which samples have the same drug: a salt, its base and a solvate are one, whatever they are called."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from torchcell.data.errors import InputError
from torchcell.data.parent_molecule import parent_key
from torchcell.data.structures import SKELETON, refuse_rejected

if TYPE_CHECKING:
    from torchcell.data.response import Response

CONFLICTS = ("error", "first", "majority")
"""What to do with a drug that has SMILES of different molecules."""


def drug_keys(record: Response) -> np.ndarray:
    """A key for each sample's drug [n], the same for all salts, solvates, stereoisomers and names of one skeleton.

    It is the first block of the InChIKey of the parent molecule (see ``torchcell.data.parent_molecule``); where there
    is no SMILES the first block of the record's own InChIKey, which can only be taken as it is, that of a salt too;
    else the drug's name. Samples that share a name or an InChIKey are joined, so that no spelling tears a drug apart.

    Raises:
        InputError: SMILES that rdkit rejects, all named with their drugs.
    """
    rows = _rows(record)
    refuse_rejected(record.name, sorted({(drug, text) for drug, text, given in rows if not given}))
    keys = {row: _key(*row) for row in set(rows)}
    blocks = np.array([_block(keys[row]) or row[0] for row in rows])
    given = np.array([row[2][:SKELETON] or block for row, block in zip(rows, blocks.tolist(), strict=True)])
    return joined(blocks, record.drug.astype(str), given)


def drug_forms(record: Response) -> np.ndarray:
    """The name of each sample's drug [n], the first by the alphabet of all names that its parent molecule has.

    Unlike ``drug_keys`` it keeps stereoisomers apart: they are another treatment, and no replicate. A SMILES that rdkit
    rejects tells nothing here.
    """
    rows = _rows(record)
    keys = {row: _key(*row) for row in set(rows)}
    return joined(record.drug.astype(str), np.array([keys[row] or f"name {row[0]}" for row in rows]))


def one_structure(record: Response, policy: str) -> Response:
    """The record with what ``policy`` makes of drugs that have SMILES of different molecules in it.

    Args:
        record: With SMILES, or without any.
        policy: ``error`` leaves them to those who need structures, who refuse; ``first`` takes the first row's for all
            rows of the drug, ``majority`` that of most rows. Salts of one molecule are no conflict.

    Raises:
        InputError: Another policy.
    """
    if policy not in CONFLICTS:
        raise InputError(f"data.record.conflicting_smiles={policy!r}: must be one of {', '.join(CONFLICTS)}")
    if policy == "error" or record.smiles is None:
        return record
    rows: dict[str, dict[str, list[int]]] = {}
    for i, (drug, text, _) in enumerate(_rows(record)):
        if text:
            rows.setdefault(drug, {}).setdefault(_key(drug, text, text), []).append(i)
    chosen = np.arange(len(record))
    for by_molecule in rows.values():
        if len(by_molecule) > 1:
            every = list(by_molecule.values())  # in the order of the rows
            taken = every[0] if policy == "first" else max(every, key=len)
            for others in every:
                chosen[others] = others if others is taken else taken[0]
    changed = int((chosen != np.arange(len(record))).sum())
    if not changed:
        return record
    given = None if record.inchikey is None else record.inchikey[chosen]
    lost = {**record.lost, f"samples whose SMILES gave way to another one of their drug ({policy})": changed}
    return replace(record, smiles=record.smiles[chosen], inchikey=given, lost=lost)


def joined(first: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """The least of the ``first`` keys among all samples that are linked through any kind of key [n]."""
    names, own = np.unique(first, return_inverse=True)
    size, links = len(names), [np.empty((2, 0), dtype=np.int64)]
    for keys in others:
        different, at = np.unique(keys, return_inverse=True)
        links.append(np.stack([own, size + at]))
        size += len(different)
    ends = np.concatenate(links, axis=1)
    ones = np.ones(ends.shape[1], dtype=np.int8)
    matrix = sparse.coo_matrix((ones, (ends[0], ends[1])), shape=(size, size))
    group = connected_components(matrix, directed=False)[1][: len(names)]
    least = {int(g): name for g, name in zip(group[::-1], names[::-1].tolist(), strict=True)}
    return np.array([least[int(g)] for g in group])[own]


def _rows(record: Response) -> list[tuple[str, str, str]]:
    """Drug, SMILES and InChIKey of each sample; a text is empty where there is none."""
    n = len(record)
    smiles = record.smiles if record.smiles is not None else np.full(n, "")
    given = record.inchikey if record.inchikey is not None else np.full(n, "")
    return list(zip(record.drug.tolist(), smiles.tolist(), given.tolist(), strict=True))


def _key(drug: str, smiles: str, given: str) -> str:
    """Of the parent molecule, else the InChIKey as it is given; empty where there is neither."""
    if not smiles:
        return given
    try:
        return parent_key(smiles, drug)
    except InputError:  # of a SMILES that rdkit rejects; who must have one refuses it before
        return given


def _block(key: str) -> str:
    """The first block of an InChIKey; a SMILES, which InChI could not read, as it is."""
    return key[:SKELETON] if len(key) > SKELETON and key[SKELETON] == "-" else key
