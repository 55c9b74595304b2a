"""The treatments that a user asks ``predict`` for: drugs by name or structure, and what their cells express."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class

from torchcell.data.errors import InputError, near, some
from torchcell.data.molecules import Molecules, borrowings, drug_structures
from torchcell.data.parent_molecule import parent_key
from torchcell.data.response import Response
from torchcell.data.structures import canonical
from torchcell.data.targets import check_targets
from torchcell.datamodules.spec import Spec

FEATURES_FROM = "torchcell.data"
"""Where a class that a checkpoint names may come from."""


def read_treatments(path: str, spec: Spec, columns: Mapping[str, str] | None = None) -> Response:
    """Read ``drug`` and / or ``smiles``, ``cell_line``, ``dose_value`` and ``time``, with units; one row a sample.

    An h5ad file may bring the layers ``control`` and ``basal``, and those are kept; a sample without them stands on its
    line's mean of the training part. Drugs are told by name, else by structure, a salt being its base; one that is new
    needs a SMILES, and features that can be made of one.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file, or ``.h5ad``, see ``torchcell.data.response_request``.
        spec: Of a model of drug response.
        columns: Internal name -> the file's name, for those that differ.

    Returns:
        Samples without a measurement; their molecules are those of the spec, then the new ones.

    Raises:
        InputError: A missing column; a line that the model was not trained on, without a control of its own; a drug
            that the model cannot know, named with its nearest ones; a known drug with another structure.
    """
    from torchcell.data.response_request import read_response_request

    asked = read_response_request(path, np.array(spec.genes), columns)
    return _with_molecules(_with_controls(asked, spec, path), _table(spec), path)


def _with_controls(asked: Response, spec: Spec, path: str) -> Response:
    """The file's own controls and basal profiles; where it gives none, the training means of the line."""
    extras = spec.extras
    control = _filled(asked.control, "control", extras["line_control"], asked.cell_line, extras["lines"], path)
    if torch.equal(extras["line_basal"], extras["line_control"]):  # the control is the basal profile
        basal = None if asked.basal is None else np.where(np.isnan(asked.basal), control, asked.basal)
        return replace(asked, control=control, basal=basal)
    given = np.full_like(asked.control, np.nan) if asked.basal is None else asked.basal
    basal = _filled(given, "basal", extras["line_basal"], asked.cell_line, extras["lines"], path)
    return replace(asked, control=control, basal=basal)


def _filled(
    given: np.ndarray, part: str, mean: torch.Tensor, line: np.ndarray, lines: list[str], path: str
) -> np.ndarray:
    """Rows that are not given (NaN) get their line's mean of ``mean`` [L, G]; float32 [n, G]."""
    bare = np.isnan(given).any(1)
    unknown = sorted(set(line[bare].tolist()) - set(lines))
    if unknown:
        hint = near(unknown[0], lines) or lines[:5]
        raise InputError(
            f"{path}: lines that the model was not trained on: {some(unknown)}; the nearest are {hint}; another line "
            f"needs a layer {part!r} of its own, in an h5ad file"
        )
    filled = np.array(given, dtype=np.float32)
    filled[bare] = mean.numpy()[[lines.index(name) for name in line[bare].tolist()]]
    return filled


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
    structures = [(text, name) for text, name in zip(table.smiles.tolist(), table.id.tolist(), strict=True) if text]
    by_parent = {parent_key(text, name): name for text, name in reversed(structures)}  # the first of several forms
    by_structure = dict(structures)
    known = dict(zip(table.id.tolist(), table.smiles.tolist(), strict=True))
    smiles = np.full(len(asked), "") if asked.smiles is None else asked.smiles
    told = sorted(set(zip(asked.drug.tolist(), smiles.tolist(), strict=True)) - {(name, "") for name in asked.drug})
    alias = {
        name: by_structure.get(canonical(text, name)) or by_parent.get(parent_key(text, name), name)
        for name, text in told
        if name not in known
    }
    asked = replace(asked, drug=np.array([alias.get(name, name) for name in asked.drug.tolist()]))
    _refuse_other_structures({(alias.get(name, name), text) for name, text in told}, known, path)
    new = ~np.isin(asked.drug, table.id)
    if not new.any():
        return replace(asked, molecules=table)
    bare = sorted(set(asked.drug[new].tolist()) - {name for name, _ in told})
    if bare:
        hint = near(bare[0], list(known)) or sorted(known)[:5]
        raise InputError(
            f"{path}: drugs that the model does not know and that have no SMILES: {some(bare)}; give a column smiles, "
            f"or correct the names (the nearest to the first are {hint})"
        )
    return replace(asked, molecules=table.joined(_made(replace(asked.subset(new), molecules=None), table, path)))


def _refuse_other_structures(told: set[tuple[str, str]], known: Mapping[str, str], path: str) -> None:
    """Raise if a drug of the table is told with a SMILES of another molecule; salts and tautomers are the same one."""
    for name, text in sorted(told):
        held = known.get(name, "")
        if held and canonical(text, name) != held and parent_key(text, name) != parent_key(held, name):
            raise InputError(
                f"{path}: drug {name!r} has the SMILES {text!r}, and the model was trained with {held!r} for it; give "
                "the other molecule a name of its own, or leave the SMILES out"
            )


def _made(fresh: Response, table: Molecules, path: str) -> Molecules:
    """Rows of the drugs of ``fresh``, which the table lacks: by its features, else as drugs without a vector.

    A table that has such drugs goes with a model that learned a vector for them; any other refuses them by name.
    """
    names, smiles = drug_structures(fresh)
    try:
        made, why = _featurised(fresh, table), "has no vector of them"
    except InputError as error:
        made, why = None, f"can't make any: {error}"
    lacking = names if made is None else made.id[~made.known]
    if not len(lacking):
        assert made is not None
        if borrowed := borrowings(made):
            warnings.warn(
                f"{path}: drugs that the table of vectors lacks have the vector of the most similar molecule: "
                f"{some(borrowed, 20)}",
                stacklevel=2,
            )
        return made
    feature = str(table.features.get("_target_", "the features")).rpartition(".")[2]
    if table.known.all():
        raise InputError(
            f"{path}: drugs that the model does not know and has no vector for: {some(lacking)}; {feature} {why}; add "
            "them to the table of vectors, or leave them out"
        )
    warnings.warn(
        f"{path}: drugs without a vector: {some(lacking)}; {feature} {why}; they get the vector that the model learned "
        "for unknown molecules, which is the same for all of them",
        stacklevel=2,
    )
    if made is not None:
        return made
    graphs = None
    if table.graphs is not None:
        from torchcell.data.molecule_graphs import pack_graphs

        graphs = pack_graphs([""] * len(names))
    vectors = np.zeros((len(names), table.vectors.shape[1]), dtype=np.float32)
    return Molecules(names, smiles, vectors, np.zeros(len(names), dtype=bool), table.features, graphs)


def _featurised(fresh: Response, table: Molecules) -> Molecules:
    """Rows of new drugs by the features of a checkpoint, whose class must be one of ours."""
    target = str(table.features.get("_target_", ""))
    if not target.startswith(f"{FEATURES_FROM}."):
        raise InputError("the molecule features come from a table that has no row for them")
    check_targets(table.features, trusted=(FEATURES_FROM,))
    arguments = {name: value for name, value in table.features.items() if name != "_target_"}
    made: Molecules = get_class(target)(**arguments)(fresh)
    return made
