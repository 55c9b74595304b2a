"""What rdkit says of a structure: its canonical SMILES, InChIKey and Murcko scaffold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from torchcell.data.errors import InputError, some

if TYPE_CHECKING:
    from rdkit.Chem import Mol

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
