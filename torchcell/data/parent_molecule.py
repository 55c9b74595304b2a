"""The molecule that a salt, its base and a solvate share: the largest organic fragment, neutral."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from torchcell.data.errors import InputError
from torchcell.data.structures import canonical, inchikey, parsed, quiet

if TYPE_CHECKING:
    from rdkit.Chem import Mol

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
