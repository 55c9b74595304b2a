"""Molecules as graphs of atoms and bonds, all of them packed into a few flat arrays.

``atom`` int64 [A, 9] and ``bond`` int64 [E, 3] are categories as torch-geometric's ``from_smiles`` numbers them;
``bond_index`` int64 [2, E] holds the atoms of each bond, in both directions, counted from the first atom of the
molecule; molecule d has the atoms ``atom_ptr[d]`` to ``atom_ptr[d + 1]`` and the bonds ``bond_ptr[d]`` to
``bond_ptr[d + 1]``. A molecule without a structure has none of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.molecules import Molecules
from torchcell.data.morgan import Morgan
from torchcell.data.response import Response
from torchcell.data.structures import parsed


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
        features = {**made.features, "_target_": "torchcell.data.molecule_graphs.MoleculeGraphs"}
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
