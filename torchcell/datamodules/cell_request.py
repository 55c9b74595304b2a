"""The perturbations of cells that a user asks ``predict`` for, on control cells of their own."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from torchcell.data.cells_request import Controls, Trained, read_cells_request
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, near, some
from torchcell.data.gene_features import GeneFeatures
from torchcell.datamodules.spec import Spec

NETWORK_GENES = "network_genes"
"""Of a spec's extras: ``genes`` outside the vocabulary that the networks know, and the ``values`` of their features."""
LEVEL_OFF = 2.0
"""By what factor the mean expression of the controls may differ from training before it is worth a word."""


def read_perturbations(path: str, spec: Spec, controls: Controls | None) -> Conditions:
    """Read perturbations by the names of their genes, see ``read_cells_request``.

    Args:
        path: The list, with a column ``perturbation``.
        spec: Of a model of cells.
        controls: The cells that predictions start from.

    Raises:
        InputError: No controls, or what ``read_cells_request`` refuses.
    """
    if controls is None:
        raise InputError(
            "this model predicts from control cells: name them with controls=FILE.h5ad; "
            "python -m torchcell.predict --help tells how they are read"
        )
    held = spec.extras
    mean = held["gene_center"].numpy()
    known = (*spec.genes, *_network_genes(spec))
    words = tuple(held.get("control_words", ()))  # checkpoints of before have none
    trained = Trained(spec.outputs, known, mean, held["scale"], held["library"], held["covariates"], words)
    record = read_cells_request(path, controls, trained)
    level, expected = float(np.unique(record.other_control, axis=0).mean()), float(mean.mean())
    if not 1 / LEVEL_OFF <= level / max(expected, 1e-6) <= LEVEL_OFF:
        warnings.warn(
            f"{controls.path}: the mean expression of the controls is {level:.3g}, in training it was {expected:.3g}; "
            "are they normalised alike, over the same genes?",
            stacklevel=2,
        )
    return record


def widened(request: Conditions, spec: Spec) -> Spec:
    """The spec whose groups are those of the request, with the genes that it perturbs and only the networks know."""
    spec = replace(spec, extras=spec.extras | {"groups": np.unique(request.group).tolist()})
    held, features = spec.extras.get(NETWORK_GENES), spec.gene_features
    asked = {gene for genes in request.targets for gene in genes} - set(spec.genes)
    at = [] if held is None else [i for i, gene in enumerate(held["genes"]) if gene in asked]
    if held is None or features is None or not at:
        return spec
    genes = np.array([held["genes"][i] for i in at], dtype=str)
    return spec.with_added(GeneFeatures(genes, features.columns, held["values"].numpy()[at]))


def _network_genes(spec: Spec) -> tuple[str, ...]:
    """The genes that are neither measured nor perturbed in training, and that the networks know."""
    known = set(spec.genes)
    return tuple(gene for gene in spec.extras.get(NETWORK_GENES, {"genes": []})["genes"] if gene not in known)


def with_known_genes(record: Conditions, vocabulary: tuple[str, ...], policy: str) -> tuple[Conditions, dict[str, int]]:
    """Refuse perturbed genes outside the vocabulary, or drop the conditions that name one.

    Args:
        record: The conditions.
        vocabulary: What the model knows.
        policy: ``error`` or ``drop``.

    Returns:
        The conditions that are left, and how many were dropped, by what was wrong with them.
    """
    known, targets = set(vocabulary), record.targets
    lacking = sorted({gene for genes in targets for gene in genes} - known)
    if not lacking:
        return record, {}
    if policy == "error":
        hint = near(lacking[0], vocabulary)
        raise InputError(
            f"{record.name}: perturbed genes that the model does not know: {some(lacking)}"
            + (f" (the nearest to the first are {hint})" if hint else "")
            + "; correct the names, or set unknown_genes=drop to leave them out; predict also takes features of new "
            "genes, added_genes=FILE"
        )
    kept = np.array([known.issuperset(genes) for genes in targets])
    return record.subset(kept), {"conditions that perturb an unknown gene": int((~kept).sum())}


def named_conditions(record: Conditions, prediction: np.ndarray, spec: Spec) -> pd.DataFrame:
    """Sample id, perturbation, group and its covariates, then a column a gene [n, G]."""
    known = {"sample_id": record.sample_id, "perturbation": record.perturbation, "group": record.group}
    known |= {name: record.column(name) for name in record.covariates}
    names = pd.DataFrame({name: values for name, values in known.items() if name not in spec.outputs})
    return pd.concat([names, pd.DataFrame(prediction, columns=list(spec.outputs))], axis=1)
