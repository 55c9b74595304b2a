"""``Spec``: what a model reads and what it predicts; the only thing a model knows about the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.core.plain import fields_from_plain, fields_to_plain
from torchcell.evaluation.registry import metric_set
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.configurable import configurable, find
from torchcell.io.errors import InputError, some
from torchcell.io.fingerprint import fingerprint
from torchcell.io.gene_features import GeneFeatures

WEIGHTS = {"names": "weights"}
"""Metadata of a field with names that a model's weights stand for: where they differ, the weights fit no other data."""
INDICES = {"names": "indices"}
"""Metadata of a field with names that a batch refers to by number, or with what a batch is made by: where they differ
between a checkpoint and the data at hand, its model would answer about something else. Fields without metadata hold
values that were measured or fitted; see ``torchcell.training.data_changes``, which compares both."""

CLASS = "class"
"""Key of a plain spec under which its class is named."""


@configurable(subclasses=True)
@dataclass(frozen=True, eq=False)
class Spec:
    """What all tasks tell a model of its data. Each task adds its own in ``torchcell/<task>/spec.py``.

    A spec is plain: names, numbers, tensors and small frozen dataclasses of them, so that a checkpoint carries it and
    ``from_plain`` reads it back without running anything.

    Attributes:
        task: ``regression`` and ``binary`` score each output over samples, ``expression`` and ``response`` each
            sample over outputs, which are genes.
        outputs: Names of the T predicted values, in order.
        genes: The vocabulary [N] that gene indices in a batch refer to.
        kinds: Kinds of perturbation that occur in training.
        center: Mean of each output over the training samples, in its unit, float32 [T]; 0 for binary outputs.
        scale: Standard deviation likewise [T]; 1 for binary outputs.
        graph: The wild-type graph, its genes being ``genes``.
        split_hash: Of the split that center, scale and all else was fitted on.
        fingerprints: Of the values of the data, by what they are (``samples``, ``graph``, ...), see
            ``torchcell.io.fingerprint``.
        gene_features: Numbers [N, F] that a model may read of each gene besides its name; none where the data give
            none.
        n_added: How many genes, the last ones, were added after training; see ``with_added``.
    """

    WORDS: ClassVar[str] = "any data"
    """What data it is of, in words for messages."""

    task: str
    outputs: tuple[str, ...] = field(metadata=WEIGHTS)
    genes: tuple[str, ...] = field(metadata=WEIGHTS)
    kinds: tuple[str, ...] = field(metadata=WEIGHTS | {"label": "kinds of perturbation"})
    center: Float[Tensor, " T"]
    scale: Float[Tensor, " T"]
    graph: CellGraph | None
    split_hash: str
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    gene_features: GeneFeatures | None = None
    n_added: int = 0

    def __post_init__(self) -> None:
        metric_set(self.task)  # an unknown one is an error that lists those that are known
        for name in ("center", "scale"):
            if getattr(self, name).shape != (len(self.outputs),):
                raise InputError(f"{name} {list(getattr(self, name).shape)} for {len(self.outputs)} outputs")
        if self.graph is not None and tuple(self.graph.genes.tolist()) != self.genes:
            raise InputError("the spec's genes are not the graph's genes, in the graph's order")
        held = self.gene_features
        if held is not None and held.values.shape != (len(self.genes), len(held.columns)):
            raise InputError(f"gene features {held.values.shape} for {len(self.genes)} genes: a row a gene is needed")
        if held is not None and tuple(held.genes.tolist()) != self.genes:
            raise InputError("the gene features are not of the spec's genes, in their order")
        if not 0 <= self.n_added <= len(self.genes):
            raise InputError(f"{self.n_added} added genes among {len(self.genes)}")

    def check_model(self, model: type) -> None:
        """Refuse a class of models that cannot read these data; a task adds what its models may lack.

        Args:
            model: With its ``reads``, see ``torchcell.core.model.Model``.

        Raises:
            InputError: It reads another task's spec.
        """
        reads: type[Spec] = getattr(model, "reads", Spec)
        if not isinstance(self, reads):
            raise InputError(
                f"{model.__name__} reads a {reads.__name__}, and the data's spec is a {type(self).__name__}: choose a "
                f"model of {self.WORDS}"
            )

    def gene_facts(self) -> dict[str, np.ndarray]:
        """What a table of gene embeddings says of each gene besides its name, by column [N]."""
        return {}

    @property
    def data_fingerprint(self) -> str:
        """One hash over the values of all data; empty where it is not known."""
        return fingerprint(dict(self.fingerprints)) if self.fingerprints else ""

    @property
    def n_trained_with(self) -> int:
        """Genes that the model was built with; those added later come after them."""
        return len(self.genes) - self.n_added

    def with_added(self, features: GeneFeatures) -> Self:
        """The same inputs with further genes after the known ones: isolated in the graph, known by their features.

        Args:
            features: Of the added genes; columns are matched by name.

        Raises:
            InputError: A gene that is known or stands twice, a column that is missing or one too many, a missing
                value, or a spec without gene features.
        """
        own = self.gene_features
        if own is None:
            raise InputError(
                "this checkpoint reads no gene features, so it can tell nothing of an added gene; train with "
                "data.features"
            )
        known = sorted(set(features.genes.tolist()) & set(self.genes))
        if known:
            raise InputError(f"added genes that the checkpoint already knows: {some(known)}; leave them out")
        added = features.validate().in_columns(own.columns)
        names = added.genes.tolist()
        genes = (*self.genes, *names)
        values = np.concatenate([own.values, added.values])
        return replace(
            self,
            genes=genes,
            graph=None if self.graph is None else self.graph.with_genes(names),
            gene_features=GeneFeatures(np.array(genes, dtype=str), own.columns, values),
            n_added=self.n_added + len(names),
        )

    def to_plain(self) -> dict[str, Any]:
        """Strings, numbers, tensors, lists and dicts only, with the class's name: loads with ``weights_only=True``."""
        return {CLASS: class_name(type(self)), **fields_to_plain(self)}

    @classmethod
    def from_plain(cls, plain: Any, trust: tuple[str, ...] = ()) -> Self:
        """The inverse of ``to_plain``, of the class that is named, which must be this one or one below it.

        Args:
            plain: What a checkpoint holds.
            trust: Packages besides torchcell's whose specs may be named, e.g. your own.

        Raises:
            InputError: A class that is no spec, or lies outside the trusted packages; values of another type than the
                class declares, named.
        """
        if not isinstance(plain, dict) or CLASS not in plain:
            raise InputError(f"the spec names no {CLASS!r}")
        found = spec_class(plain[CLASS], trust)
        if not issubclass(found, cls):
            raise InputError(f"the spec is a {found.__name__}, and a {cls.__name__} is needed")
        return fields_from_plain(found, {key: value for key, value in plain.items() if key != CLASS}, "spec")


def class_name(kind: type) -> str:
    """Where a class is found, e.g. ``torchcell.cells.spec.CellsSpec``."""
    return f"{kind.__module__}.{kind.__qualname__}"


def spec_class(name: Any, trust: tuple[str, ...] = ()) -> type[Spec]:
    """The class of specs of a name: one that is known already, else one that is defined below a trusted package.

    Raises:
        InputError: A name outside the trusted packages, one that leads nowhere, or to something else than a spec.
    """
    if not isinstance(name, str):
        raise InputError(f"the spec's class must be a name, not {type(name).__name__}")
    known = {class_name(kind): kind for kind in _all_specs()}
    if name in known:
        return known[name]
    found = find(name, trust)
    if not (isinstance(found, type) and issubclass(found, Spec)):
        raise InputError(f"the spec's class {name!r} is no spec; nothing of it was run")
    return found


def _all_specs() -> list[type[Spec]]:
    found: list[type[Spec]] = [Spec]
    for kind in found:
        found += kind.__subclasses__()
    return found


def fit_scaler(target: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Center and scale of each output over the training samples; missing values don't count.

    Args:
        target: float32 [n, T], NaN where missing.
        task: Binary outputs keep center 0 and scale 1.

    Returns:
        center [T] and scale [T]; an output that does not vary has scale 1.
    """
    outputs = target.shape[1]
    if task == "binary":
        return torch.zeros(outputs), torch.ones(outputs)
    center = target.double().nanmean(0)
    variance = (target.double() - center).square().nanmean(0)
    scale = torch.where(variance > 1e-16, variance.sqrt(), torch.ones_like(variance))
    if not torch.isfinite(center).all():
        raise InputError("an output has no measured value in the training part; drop it or change the split")
    return center.float(), scale.float()
