"""Morgan fingerprints: one bit for each neighbourhood of atoms (Rogers and Hahn 2010, doi:10.1021/ci100050t)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.molecules import Molecules, drug_structures
from torchcell.data.response import Response
from torchcell.data.structures import parsed


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
        features = {"_target_": "torchcell.data.morgan.Morgan", "bits": self.bits, "radius": self.radius}
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
