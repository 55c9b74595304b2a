"""A response of six drugs with structures, annotations and lines."""

from __future__ import annotations

import numpy as np

from torchcell.drug_response.record import Response

SMILES = {"acid": "CC(=O)O", "alcohol": "CCO", "benzene": "c1ccccc1", "phenol": "Oc1ccccc1", "toluene": "Cc1ccccc1"}


def drugs(smiles: dict[str, str] | None = None, **fields) -> Response:
    """Two samples a drug, in disorder; ``blank`` has no SMILES."""
    held = {"phenol": "", "blank": "", **SMILES, **(smiles or {})} if smiles is None else smiles
    drug = np.array([*held, *reversed(held)])
    n = len(drug)
    rng = np.random.default_rng(0)
    return Response(
        name="toy",
        treated=rng.normal(size=(n, 3)).astype(np.float32),
        control=np.zeros((n, 3), dtype=np.float32),
        drug=drug,
        dose_value=np.ones(n, dtype=np.float32),
        time=np.full(n, 24, dtype=np.float32),
        cell_line=np.array(["L1"] * (n // 2) + ["L2"] * (n // 2)),
        plate=np.array(["P"] * n),
        genes=np.array(["a", "b", "c"]),
        sample_id=np.array([f"s{i}" for i in range(n)]),
        smiles=np.array([held[name] for name in drug]),
        **fields,
    ).validate()
