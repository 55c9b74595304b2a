"""Structures of compounds from a table, for expression files that name compounds but not what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from torchcell.data.errors import InputError, some
from torchcell.data.tables import read_table, text_cells

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
