"""One name for each structure: names of drugs that files leave empty, or give to several structures."""

from __future__ import annotations

import numpy as np

from torchcell.data.structures import inchikey


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
