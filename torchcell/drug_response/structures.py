"""Molecular structures: SMILES of a table, scaffolds, refusal of what is no molecule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.io.errors import InputError, some
from torchcell.io.tables import read_table, text_cells

if TYPE_CHECKING:
    from rdkit.Chem import Mol


IDS, SMILES, KEYS = ("pert_id", "broad_id"), ("smiles", "canonical_smiles"), ("inchikey", "InChIKey", "inchi_key")
BROAD_ID = 13
"""Letters of ``BRD-K76022557`` without the salt and the batch that follow."""


def structures_of(path: str | Path, pert_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SMILES and InChIKey of compounds [n] each, empty for those the table lacks; of several rows the first counts.

    Args:
        path: A table, e.g. the Repurposing Hub's ``.txt``, with the columns pert_id (or broad_id), smiles and, at
            will, InChIKey.
        pert_id: Ids of the compounds [n]; Broad ids match whatever their salt and batch.

    Raises:
        InputError: No such file, a missing column, or no compound that the table knows.
    """
    table = read_table(path, comment="!")  # the hub's remarks stand in front
    named = {what: next((name for name in names if name in table), None) for what, names in
             (("pert_id", IDS), ("smiles", SMILES), ("inchikey", KEYS))}  # fmt: skip
    lacking = [what for what in ("pert_id", "smiles") if named[what] is None]
    if lacking:
        raise InputError(f"{path} has no column {some(lacking)}; it has {some(table.columns, 12)}")
    cells = {what: text_cells(table, name or "") for what, name in named.items()}
    known: dict[str, tuple[str, str]] = {}
    for row in zip(*cells.values(), strict=True):
        known.setdefault(_compound(row[0]), row[1:])
    found = [known.get(_compound(name), ("", "")) for name in pert_id.tolist()]
    if not any(smiles for smiles, _ in found):
        raise InputError(f"{path} knows none of the compounds, e.g. {some(np.unique(pert_id), 3)}; its ids are such as "
                         f"{some(cells['pert_id'][:3])}")  # fmt: skip
    return np.array([smiles for smiles, _ in found]), np.array([key for _, key in found])


def _compound(name: str) -> str:
    return name[:BROAD_ID] if name.startswith("BRD-") else name


SKELETON = 14
"""Letters of the first block of an InChIKey: the skeleton, without stereochemistry, charge and isotopes."""
MOST_NAMED = 100
"""SMILES that one error names; further ones are counted."""


def molecule(smiles: str) -> Mol | None:
    """The parsed structure, or none where the text is empty or rdkit rejects it.

    A SMILES ends at the first blank; a name or an extension after it, which may be cut off, is not read.
    """
    from rdkit import Chem

    words = smiles.split()
    with quiet():
        return Chem.MolFromSmiles(words[0]) if words else None


def parsed(smiles: str, drug: str = "") -> Mol:
    """The parsed structure; text that rdkit rejects is an error that names the drug and the SMILES."""
    mol = molecule(smiles)
    if mol is None:
        owner = f" of drug {drug!r}" if drug else ""
        raise InputError(f"rdkit rejects the SMILES {smiles!r}{owner}; mend it, or leave it empty where it is unknown")
    return mol


def refuse_rejected(record: str, structures: Iterable[tuple[str, str]]) -> None:
    """Raise one error on all SMILES that rdkit rejects.

    Args:
        record: What they are of.
        structures: Owner, such as a drug or a row, and SMILES; an empty one is let pass.
    """
    bad = [f"{owner}: {smiles}" for owner, smiles in structures if smiles and not _readable(smiles)]
    if bad:
        raise InputError(
            f"{record}: rdkit rejects {len(bad)} SMILES: {some(bad, MOST_NAMED)}; mend them, or leave them empty where "
            "they are unknown"
        )


def _readable(smiles: str) -> bool:
    try:
        canonical(smiles)  # kept, where a molecule would be parsed anew
    except InputError:
        return False
    return True


@lru_cache(maxsize=1 << 16)
def canonical(smiles: str, drug: str = "") -> str:
    """Canonical SMILES of a structure, with stereochemistry and every fragment; ``drug`` is named in the error."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(parsed(smiles, drug)))


@lru_cache(maxsize=1 << 16)
def inchikey(smiles: str, drug: str = "") -> str:
    """InChIKey of 27 letters; its first ``SKELETON`` letters are the skeleton without stereochemistry."""
    from rdkit import Chem

    mol = parsed(smiles, drug)
    with quiet():
        key = str(Chem.MolToInchiKey(mol))
    if not key:
        raise InputError(f"the SMILES {smiles!r} has no InChIKey; leave it empty or give an InChIKey column")
    return key


@lru_cache(maxsize=1 << 16)
def scaffold(smiles: str, drug: str = "") -> str:
    """Murcko scaffold as canonical SMILES without stereochemistry; empty for a molecule without a ring."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return str(MurckoScaffold.MurckoScaffoldSmiles(mol=parsed(smiles, drug), includeChirality=False))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep rdkit's own log off the screen: what it rejects is said in our error."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block
