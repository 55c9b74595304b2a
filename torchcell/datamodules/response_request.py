"""The treatments that a user asks ``predict`` for: drugs by name or structure, lines that the model knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class

from torchcell.data.errors import InputError, near, some
from torchcell.data.molecules import Molecules
from torchcell.data.response import Response
from torchcell.data.structures import canonical
from torchcell.datamodules.spec import Spec

FEATURES_FROM = "torchcell.data."
"""Where a class that a checkpoint names may come from."""


def read_treatments(path: str, spec: Spec) -> Response:
    """Read ``drug`` and / or ``smiles``, ``cell_line``, ``dose_value`` (µM) and ``time`` (h); one row a sample.

    Each line stands on its mean control of the training part. Drugs are told by name, else by structure; one that is
    new needs a SMILES, and features that can be made of one.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
        spec: Of a model of drug response.

    Returns:
        Samples without a measurement; their molecules are those of the spec, then the new ones.

    Raises:
        InputError: A missing column, a line or drug that the model cannot know, named with its nearest ones.
    """
    from torchcell.data.response_request import read_response_request

    asked, lines = read_response_request(path, np.array(spec.genes)), spec.extras["lines"]
    unknown = sorted(set(asked.cell_line.tolist()) - set(lines))
    if unknown:
        hint = near(unknown[0], lines) or lines[:5]
        raise InputError(f"{path}: lines that the model was not trained on: {some(unknown)}; the nearest are {hint}")
    row = np.array([lines.index(line) for line in asked.cell_line.tolist()])
    asked = replace(
        asked,
        control=spec.extras["line_control"].numpy()[row],
        basal=spec.extras["line_basal"].numpy()[row],
    )
    return _with_molecules(asked, _table(spec), path)


def widened(record: Response, spec: Spec) -> Spec:
    """The spec with the molecules that ``record`` names besides those it was trained with."""
    held, table = spec.extras["molecules"], record.molecules
    assert table is not None
    if len(table) == len(held["id"]):
        return spec
    trained = torch.zeros(len(table), dtype=torch.bool)
    trained[: len(held["id"])] = held["trained"]
    wider = {
        "id": table.id.tolist(),
        "smiles": table.smiles.tolist(),
        "vectors": torch.from_numpy(table.vectors),
        "known": torch.from_numpy(table.known),
        "trained": trained,
        "features": dict(table.features),
    }
    if table.graphs is not None:
        wider["graphs"] = {name: torch.from_numpy(values) for name, values in table.graphs.items()}
    return replace(spec, extras=spec.extras | {"molecules": wider})


def _table(spec: Spec) -> Molecules:
    held: Mapping[str, Any] = spec.extras["molecules"]
    graphs = {name: values.numpy() for name, values in held["graphs"].items()} if "graphs" in held else None
    return Molecules(
        np.array(held["id"], dtype=str),
        np.array(held["smiles"], dtype=str),
        held["vectors"].numpy(),
        held["known"].numpy(),
        held["features"],
        graphs,
    )


def _with_molecules(asked: Response, table: Molecules, path: str) -> Response:
    """Names as the table has them; what is new gets a row of its own."""
    by_structure = {
        smiles: name for smiles, name in zip(table.smiles.tolist(), table.id.tolist(), strict=True) if smiles
    }
    names, known = asked.drug.astype(object), set(table.id.tolist())
    smiles = np.full(len(asked), "") if asked.smiles is None else asked.smiles
    for i, (name, text) in enumerate(zip(names.tolist(), smiles.tolist(), strict=True)):
        if name not in known and text:
            names[i] = by_structure.get(canonical(text, name), name)
    asked = replace(asked, drug=names.astype(str))
    new = ~np.isin(asked.drug, table.id)
    if not new.any():
        return replace(asked, molecules=table)
    bare = sorted(set(asked.drug[new & (smiles == "")].tolist()))
    if bare:
        hint = near(bare[0], list(known)) or sorted(known)[:5]
        raise InputError(
            f"{path}: drugs that the model does not know and that have no SMILES: {some(bare)}; give a column smiles, "
            f"or correct the names (the nearest to the first are {hint})"
        )
    target = str(table.features.get("_target_", ""))
    if not target.startswith(FEATURES_FROM):
        raise InputError(
            f"{path}: drugs that the model does not know: {some(sorted(set(asked.drug[new].tolist())))}; its molecule "
            "features come from a table that has no row for them, so only known drugs can be asked for"
        )
    arguments = {name: value for name, value in table.features.items() if name != "_target_"}
    made: Molecules = get_class(target)(**arguments)(replace(asked.subset(new), molecules=None))
    return replace(asked, molecules=table.joined(made))
