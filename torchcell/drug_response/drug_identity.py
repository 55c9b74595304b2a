"""Which names and structures are one drug: salts removed, InChIKey skeletons, forms of one name."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from torchcell.drug_response.structures import SKELETON, canonical, inchikey, parsed, quiet, refuse_rejected
from torchcell.io.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    from torchcell.drug_response.record import Response


SALT_METALS = frozenset({3, 11, 12, 13, 19, 20, 30, 37, 38, 55, 56})
"""Metals that come as a counterion: Li, Na, Mg, Al, K, Ca, Zn, Rb, Sr, Cs, Ba. Any other, as platinum, is the drug."""
NONMETALS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54})

ACIDS = (
    "O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O",  # pamoic (embonate)
    "O=C(O)c1ccc2ccccc2c1O",  # 1-hydroxy-2-naphthoic (xinafoate)
    "O=S(=O)(O)c1ccc2ccccc2c1",  # 2-naphthalenesulfonic (napsylate)
    "O=S(=O)(O)c1cccc2c(S(=O)(=O)O)cccc12",  # 1,5-naphthalenedisulfonic (napadisilate)
    "Cc1ccc(S(=O)(=O)O)cc1",  # tosylate
    "O=S(=O)(O)c1ccccc1",  # besylate
    "CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2",  # camsylate
    "CCCCCCCCCCCCOS(=O)(=O)O",  # lauryl sulfate (estolate)
    "CCCCCCCCCCCCCCCCCC(=O)O",  # stearate
    "CCCCCCCCCCCCCCCC(=O)O",  # palmitate
    "O=C(O)CC(O)(CC(=O)O)C(=O)O",  # citrate
    "O=C(O)C(O)C(O)C(=O)O",  # tartrate
    "O=C(O)C(O)C(O)C(O)C(O)CO",  # gluconate
)
"""Acids that salts are made with and that may be larger than the drug."""


@lru_cache(maxsize=1 << 16)
def parent(smiles: str, drug: str = "") -> str:
    """Canonical SMILES of the parent molecule; a structure without an organic fragment, or a complex, stays whole.

    Organic is a fragment with a carbon that holds hydrogen, another carbon or two nitrogens. Of several the largest by
    heavy atoms is taken, an acid that salts are made with (``ACIDS``) only where there is no other, and its charges are
    neutralized. A metal that is no usual counterion makes a complex.

    Args:
        smiles: That rdkit reads.
        drug: Named in the error.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolDescriptors
    from rdkit.Chem.MolStandardize import rdMolStandardize

    mol = parsed(smiles, drug)
    if "." not in smiles and not any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
        return canonical(smiles, drug)
    metals = {atom.GetAtomicNum() for atom in mol.GetAtoms()} - NONMETALS
    with quiet():
        neutral = rdMolStandardize.Uncharger()
        fragments = [neutral.uncharge(one) for one in Chem.GetMolFrags(mol, asMols=True) if _is_organic(one)]
    if not fragments or metals - SALT_METALS:
        return canonical(smiles, drug)
    acids = _acids()
    drugs = [one for one in fragments if _flat(one) not in acids] or fragments
    weight = rdMolDescriptors.CalcExactMolWt
    return max((one.GetNumHeavyAtoms(), weight(one), str(Chem.MolToSmiles(one))) for one in drugs)[2]


def parent_key(smiles: str, drug: str = "") -> str:
    """InChIKey of the parent molecule; its canonical SMILES where InChI knows no such structure."""
    text = parent(smiles, drug)
    try:
        return inchikey(text, drug)
    except InputError:
        return text


@lru_cache(maxsize=1)
def _acids() -> frozenset[str]:
    return frozenset(_flat(parsed(text)) for text in ACIDS)


def _flat(mol: Mol) -> str:
    """Canonical SMILES without stereochemistry."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(mol, isomericSmiles=False))


def _is_organic(mol: Mol) -> bool:
    for atom in mol.GetAtoms():
        around = [other.GetAtomicNum() for other in atom.GetNeighbors()]
        if atom.GetAtomicNum() == 6 and (atom.GetTotalNumHs() or 6 in around or around.count(7) > 1):
            return True
    return False


CONFLICTS = ("error", "first", "majority")
"""What to do with a drug that has SMILES of different molecules."""


def drug_keys(record: Response) -> np.ndarray:
    """A key for each sample's drug [n], the same for all salts, solvates, stereoisomers and names of one skeleton.

    It is the first block of the InChIKey of the parent molecule (see ``parent``); where there
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
    lost = {**record.dropped, f"samples whose SMILES gave way to another one of their drug ({policy})": changed}
    return replace(record, smiles=record.smiles[chosen], inchikey=given, dropped=lost)


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


def drug_names(names: np.ndarray, smiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Name each sample's drug so that a name has one structure, and a structure one name.

    A nameless drug gets the name that its structure has elsewhere, else its SMILES; of a name with several structures
    (salts, stereoisomers, mistakes) each gets its InChIKey behind it.

    Args:
        names: As the file has them, empty where it has none [n].
        smiles: Empty where unknown [n].

    Returns:
        Names [n] and InChIKeys [n], empty where there is no SMILES.
    """
    rows = list(zip(names.tolist(), smiles.tolist(), strict=True))
    key_of = {(name, text): inchikey(text, name) if text else "" for name, text in sorted(set(rows))}
    name_of: dict[str, str] = {}
    for (name, _), key in key_of.items():
        if key and name:
            name_of.setdefault(key, name)
    usual = {(name, text): name_of.get(key) or name or text for (name, text), key in key_of.items()}
    keys_of: dict[str, set[str]] = {}
    for row, name in usual.items():
        keys_of.setdefault(name, set()).add(key_of[row])
    several = {name for name, keys in keys_of.items() if len(keys - {""}) > 1}
    named = {row: f"{name} ({key_of[row]})" if name in several and key_of[row] else name for row, name in usual.items()}
    return np.array([named[row] for row in rows]), np.array([key_of[row] for row in rows])
