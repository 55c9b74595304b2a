"""What all models of drug response read of a sample: basal profile, molecule, cell line, dose and time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError, some
from torchcell.datamodules.response_samples import ResponseBatch
from torchcell.datamodules.spec import Spec
from torchcell.nn.dense_encoder import DenseEncoder
from torchcell.nn.molecule_graph_encoder import MoleculeGraphEncoder
from torchcell.nn.molecule_vectors import MoleculeVectors

BASAL = ("change", "raw", "none")
MOLECULES = ("vectors", "graph")


class ResponseInputs(nn.Module):
    """One vector of ``width`` numbers each, side by side.

    Args:
        spec: Of the task ``response``.
        width: Of each part.
        hidden: Hidden width of the encoders.
        dropout: Share of the encoders' hidden units dropped in training.
        basal: Basal profile as ``change`` from the mean line in standard deviations, ``raw`` as published, or ``none``.
        molecules: ``vectors``, or ``graph``: a message-passing encoder on atoms and bonds.
        molecule_dropout: Share of the entries of molecules' vectors dropped in training.
        molecule_drop: Share of samples whose molecule counts as unknown in a training step.
        line_drop: Likewise for the cell line.
        line_sd: Of a fresh line vector's entries.
        unknown: Learned vectors for unknown molecules and lines; published: none.
        dose: Whether dose and time are read; published: not.

    Attributes:
        features: Width of all parts together.

    Raises:
        InputError: Data of another task, an unknown choice, or molecules without vectors and nothing to stand in.
    """

    mean_line_G: Tensor
    scale_G: Tensor

    def __init__(
        self,
        spec: Spec,
        *,
        width: int = 128,
        hidden: int = 256,
        dropout: float | int = 0.1,
        basal: str = "change",
        molecules: str = "vectors",
        molecule_dropout: float | int = 0.0,
        molecule_drop: float | int = 0.0,
        line_drop: float | int = 0.0,
        line_sd: float | int = 1.0,
        unknown: bool = True,
        dose: bool = True,
    ) -> None:
        super().__init__()
        if spec.task != "response":
            raise InputError(f"this model reads drug response, and the data's task is {spec.task}; see conf/data")
        if basal not in BASAL or molecules not in MOLECULES:
            raise InputError(
                f"model.inputs.basal={basal!r} is one of {BASAL}, model.inputs.molecules={molecules!r} of {MOLECULES}"
            )
        held = spec.extras["molecules"]
        if not unknown and not held["known"].all():
            lacking = [name for name, known in zip(held["id"], held["known"].tolist(), strict=True) if not known]
            raise InputError(
                f"molecules without a vector: {some(lacking)}; the model has none to learn in their place, so set "
                "model.inputs.unknown=true or data.missing_molecules=drop"
            )
        self.raw, self.line_drop, self.n_lines = basal == "raw", line_drop, len(spec.extras["lines"])
        self.register_buffer("mean_line_G", spec.extras["line_basal"].mean(0), persistent=False)
        self.register_buffer("scale_G", spec.extras["basal_scale"], persistent=False)
        self.basal = None if basal == "none" else DenseEncoder(len(spec.genes), hidden, width, dropout)
        self.molecule: nn.Module
        if molecules == "graph":
            if "graphs" not in held:
                raise InputError(
                    "model.inputs.molecules=graph needs the molecules' graphs, and the data have vectors only; set "
                    "data.molecules to torchcell.data.molecule_graphs.MoleculeGraphs"
                )
            self.molecule = MoleculeGraphEncoder(held["graphs"], width, drop=molecule_drop)
        else:
            self.molecule = MoleculeVectors(
                held["vectors"], held["known"], width, hidden, dropout, molecule_dropout, molecule_drop, unknown
            )
        self.line_embedding = nn.Embedding(self.n_lines + unknown, width)
        nn.init.normal_(self.line_embedding.weight, std=line_sd)
        self.dose = DenseEncoder(2, width // 2, width) if dose else None
        self.features = width * (2 + (self.basal is not None) + dose)

    def forward(self, batch: ResponseBatch) -> Float[Tensor, "B H"]:
        """All parts side by side [B, features]."""
        return torch.cat(list(self.parts(batch).values()), 1)

    def parts(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``basal``, ``molecule``, ``line`` and ``dose`` (with the time), those that are read [B, width]."""
        found = {}
        if self.basal is not None:
            basal_BG = batch.basal if self.raw else (batch.basal - self.mean_line_G) / self.scale_G
            found["basal"] = self.basal(basal_BG)
        found |= {"molecule": self.molecule(batch.drug), "line": self.line_embedding(self._line(batch))}
        if self.dose is not None:
            # Times around 16 h become numbers around 0, as doses around 1 µM are.
            found["dose"] = self.dose(torch.stack([batch.log_dose, (batch.log_time - 4) / 2], 1))
        return found

    def _line(self, batch: ResponseBatch) -> Tensor:
        """Rows of the line embedding; the last is the unknown line's."""
        line_B = batch.line
        if self.line_embedding.num_embeddings == self.n_lines:
            if (line_B < 0).any():
                raise InputError(
                    "a cell line that was not trained on, and the model has no vector for it; set "
                    "model.inputs.unknown=true"
                )
            return line_B
        if self.training and self.line_drop:
            gone_B = torch.rand(line_B.shape, device=line_B.device) < self.line_drop
            line_B = torch.where(gone_B, -1, line_B)
        return torch.where(line_B < 0, self.n_lines, line_B)
