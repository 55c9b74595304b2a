"""``DrugResponseSpec``: what a model of drug response knows about its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchcell.core.spec import INDICES, Spec
from torchcell.drug_response import metrics  # noqa: F401  whoever reads a spec knows how its targets are scored
from torchcell.io.errors import InputError


@dataclass(frozen=True, eq=False)
class PackedGraphs:
    """Atoms and bonds of all D molecules as flat arrays, see ``torchcell.drug_response.molecules.pack_graphs``.

    Attributes:
        atom: Categories of each atom, int64 [A, 9].
        atom_ptr: Molecule d has the atoms ``atom_ptr[d]`` to ``atom_ptr[d + 1]``, int64 [D + 1].
        bond: Categories of each bond, both ways, int64 [E, 3].
        bond_index: Its two atoms, numbered within the molecule, int64 [2, E].
        bond_ptr: Molecule d has the bonds ``bond_ptr[d]`` to ``bond_ptr[d + 1]``, int64 [D + 1].
    """

    atom: Int[Tensor, "A F"]
    atom_ptr: Int[Tensor, " P"]
    bond: Int[Tensor, "E F"]
    bond_index: Int[Tensor, "2 E"]
    bond_ptr: Int[Tensor, " P"]


@dataclass(frozen=True, eq=False)
class MoleculeList:
    """The D molecules that a batch's ``drug`` refers to by row.

    Attributes:
        id: Their names, each once.
        smiles: Their structures; empty where none is known.
        vectors: What is read of each, e.g. a fingerprint, float32 [D, F].
        known: Whether a molecule has a vector, bool [D].
        trained: Whether a training sample has it, bool [D].
        features: What makes vectors of further molecules: a plain mapping with ``_target_`` and its arguments.
        graphs: Atoms and bonds; none where no model reads them.
    """

    id: tuple[str, ...] = field(metadata=INDICES)
    smiles: tuple[str, ...] = field(metadata=INDICES)
    vectors: Float[Tensor, "D F"]
    known: Bool[Tensor, " D"]
    trained: Bool[Tensor, " D"]
    features: Mapping[str, Any]
    graphs: PackedGraphs | None = None

    def __post_init__(self) -> None:
        sizes = {"smiles": len(self.smiles), "vectors": len(self.vectors), "known": len(self.known)}
        sizes |= {"trained": len(self.trained)}
        odd = [f"{size} {name}" for name, size in sizes.items() if size != len(self)]
        if odd:
            raise InputError(f"a list of {len(self)} molecules with {', '.join(odd)}")

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, eq=False, kw_only=True)
class DrugResponseSpec(Spec):
    """A drug on a cell line in, expression of G genes out; see ``Spec`` for what all tasks have.

    ``genes`` and ``outputs`` are the G measured genes. All expression is in the unit of the user's file, e.g. log2 of
    an intensity. A batch is a ``torchcell.drug_response.datamodule.ResponseBatch``.

    Attributes:
        molecules: The D molecules, new ones of a request among them.
        lines: Names of the L cell lines of training.
        line_control: Mean control of each line over the training samples, float32 [L, G].
        line_treated: Mean treated profile likewise [L, G].
        line_basal: Mean profile of the untreated line likewise [L, G]; the control's where no other is known.
        basal_scale: Standard deviation of the basal profiles over the training samples, at least .001, float32 [G].
        change_center: Mean change from the control over the training samples, float32 [G].
        change_scale: Its standard deviation, float32 [G].
        dose_range: Least and largest dose of the training samples, µM.
        time_range: Likewise of their times, h.
    """

    WORDS: ClassVar[str] = "drug response"

    molecules: MoleculeList = field(metadata=INDICES)
    lines: tuple[str, ...] = field(metadata=INDICES)
    line_control: Float[Tensor, "L G"]
    line_treated: Float[Tensor, "L G"]
    line_basal: Float[Tensor, "L G"]
    basal_scale: Float[Tensor, " G"]
    change_center: Float[Tensor, " G"]
    change_scale: Float[Tensor, " G"]
    dose_range: tuple[float, ...]
    time_range: tuple[float, ...]
