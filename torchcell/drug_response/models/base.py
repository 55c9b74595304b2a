"""What models of drug response share: encoders of molecule, cell line, dose and control, and the base class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.spec import DrugResponseSpec, PackedGraphs
from torchcell.graph.cell_graph import expand
from torchcell.io.errors import InputError, some
from torchcell.nn.losses import log_cosh, profile_distance
from torchcell.nn.mixing import StackingWeights
from torchcell.nn.ragged import segment_mean


class DenseEncoder(nn.Module):
    r"""Linear, LayerNorm, ReLU, dropout, Linear, LayerNorm; entries of the output have variance 1 over the width.

    Args:
        features: Width F of the input.
        hidden: Width of the hidden layer.
        width: Width W of the output.
        dropout: Share of hidden units dropped in training.
        input_dropout: Share of the input's entries dropped in training.

    Shapes:
        x_BF [B, F] -> [B, W].
    """

    def __init__(
        self, features: int, hidden: int, width: int, dropout: float | int = 0.0, input_dropout: float | int = 0.0
    ) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        self.first = nn.Linear(features, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, x_BF: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        """One row an input."""
        hidden_BK = self.first_norm(self.first(self.input_dropout(x_BF))).relu()
        return self.second_norm(self.second(self.dropout(hidden_BK)))


ATOM_SIZES = (119, 9, 11, 12, 9, 5, 8, 2, 2)
"""Categories of each of an atom's nine numbers in torch-geometric's ``from_smiles``."""
BOND_SIZES = (22, 6, 2)
"""Of a bond's three."""


class GINE(nn.Module):
    r"""One graph isomorphism layer with edge features (Hu et al., ICLR 2020, arXiv:1905.12265).

    .. math::
        y_i = x_i + \mathrm{MLP}\Big((1 + \epsilon) x_i + \sum_{j \to i} \mathrm{ReLU}(x_j + e_{ji})\Big)

    Args:
        width: Of atoms and bonds.

    Shapes:
        x_AW [A, W], e_EW [E, W], index_2E -> [A, W].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(
        self, x_AW: Float[Tensor, "A W"], e_EW: Float[Tensor, "E W"], index_2E: Int[Tensor, "2 E"]
    ) -> Float[Tensor, "A W"]:
        """One row an atom; the layer's input is normalized."""
        h_AW = self.norm(x_AW)
        message_EW = torch.relu(h_AW[index_2E[0]] + e_EW)
        sum_AW = torch.zeros_like(h_AW).index_add(0, index_2E[1], message_EW.to(h_AW.dtype))
        return x_AW + self.mlp((1 + self.epsilon) * h_AW + sum_AW)


class MoleculeGraphEncoder(nn.Module):
    """GINE layers on the molecules of a batch, each encoded once, then the mean over atoms and a linear map.

    Args:
        graphs: All molecules as flat arrays; buffers that no checkpoint repeats and no batch carries.
        width: Width W of atoms and of the output.
        n_layers: Bonds that a message travels.
        drop: Share of the samples whose molecule counts as unknown in a training step.

    Shapes:
        drug_B int64 [B] -> [B, W]; a molecule without atoms gets one learned vector.
    """

    atom: Tensor
    atom_ptr: Tensor
    bond: Tensor
    bond_index: Tensor
    bond_ptr: Tensor
    atom_start: Tensor
    bond_start: Tensor

    def __init__(self, graphs: PackedGraphs, width: int = 128, n_layers: int = 3, drop: float | int = 0.0) -> None:
        super().__init__()
        for name in ("atom", "atom_ptr", "bond", "bond_index", "bond_ptr"):
            self.register_buffer(name, getattr(graphs, name), persistent=False)
        self.drop = drop
        # One table for all categories of an atom: each of its numbers has a range of rows.
        self.atom_embedding = nn.Embedding(sum(ATOM_SIZES), width)
        self.bond_embedding = nn.Embedding(sum(BOND_SIZES), width)
        for name, sizes in (("atom_start", ATOM_SIZES), ("bond_start", BOND_SIZES)):
            self.register_buffer(name, torch.tensor((0, *sizes[:-1])).cumsum(0), persistent=False)
        self.layers = nn.ModuleList(GINE(width) for _ in range(n_layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.missing_embedding = nn.Parameter(torch.randn(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw embeddings of such a size that an atom's nine, and a bond's three, add up to variance 1."""
        nn.init.normal_(self.atom_embedding.weight, std=len(ATOM_SIZES) ** -0.5)
        nn.init.normal_(self.bond_embedding.weight, std=len(BOND_SIZES) ** -0.5)

    def forward(self, drug_B: Int[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """One row a sample."""
        drug_U, place_B = torch.unique(drug_B, return_inverse=True)
        x_BW = self.encode(drug_U)[place_B]
        known_B = self.atom_ptr[drug_B + 1] > self.atom_ptr[drug_B]
        if self.training and self.drop:
            known_B = known_B & (torch.rand(known_B.shape, device=known_B.device) >= self.drop)
        return torch.where(known_B[:, None], x_BW, self.missing_embedding.to(x_BW.dtype))

    def encode(self, drug_U: Int[Tensor, " U"]) -> Float[Tensor, "U W"]:
        """One row a molecule."""
        return self.out(segment_mean(*self.atoms(drug_U)))

    def atoms(self, drug_U: Int[Tensor, " U"]) -> tuple[Float[Tensor, "A W"], Int[Tensor, " P"]]:
        """Atoms after the last layer [A, W] and where each molecule's begin [U + 1].

        Cut out of the packed arrays, so that cost follows the molecules of the batch.
        """
        n_atoms_U = self.atom_ptr[drug_U + 1] - self.atom_ptr[drug_U]
        ptr_P = nn.functional.pad(n_atoms_U.cumsum(0), (1, 0))
        atom_A, _ = expand(self.atom_ptr[drug_U], n_atoms_U)
        bond_E, molecule_E = expand(self.bond_ptr[drug_U], self.bond_ptr[drug_U + 1] - self.bond_ptr[drug_U])
        index_2E = self.bond_index[:, bond_E] + ptr_P[molecule_E]
        x_AW = self.atom_embedding(self.atom[atom_A] + self.atom_start).sum(1)
        e_EW = self.bond_embedding(self.bond[bond_E] + self.bond_start).sum(1)
        for layer in self.layers:
            x_AW = layer(x_AW, e_EW, index_2E)
        return x_AW, ptr_P

    def extra_repr(self) -> str:
        """Molecules, atoms and bonds of the table."""
        return f"{len(self.atom_ptr) - 1:,} molecules, {len(self.atom):,} atoms, {len(self.bond) // 2:,} bonds"


class MoleculeVectors(nn.Module):
    """An MLP on rows of a table; one learned vector for molecules without a row.

    Args:
        vector_DF: The table [D, F], a buffer that no checkpoint repeats.
        known_D: Which molecules have a row [D].
        width: Width W of the output.
        hidden: Width of the MLP's hidden layer.
        dropout: Share of hidden units dropped in training.
        input_dropout: Share of the vectors' entries dropped in training.
        drop: Share of the samples whose molecule counts as unknown in a training step, so that the model also learns
            what a drug does on average.
        missing: Whether there is a learned vector; without one an unknown molecule is a vector of zeros.

    Shapes:
        drug_B int64 [B] -> [B, W].
    """

    vector_DF: Tensor
    known_D: Tensor

    def __init__(
        self,
        vector_DF: Float[Tensor, "D F"],
        known_D: Bool[Tensor, " D"],
        width: int = 128,
        hidden: int = 256,
        dropout: float | int = 0.0,
        input_dropout: float | int = 0.0,
        drop: float | int = 0.0,
        missing: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("vector_DF", vector_DF, persistent=False)
        self.register_buffer("known_D", known_D, persistent=False)
        self.drop = drop
        self.encoder = DenseEncoder(vector_DF.shape[1], hidden, width, dropout, input_dropout)
        self.missing_embedding = nn.Parameter(torch.randn(width)) if missing else None

    def forward(self, drug_B: Int[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """One row a sample."""
        return self.stand_in(self.encoder(self.vector_DF.index_select(0, drug_B)), self.known_D[drug_B])

    def stand_in(self, x_BW: Tensor, known_B: Tensor) -> Tensor:
        """The learned vector in place of rows that are unknown, or dropped in training."""
        if self.missing_embedding is None:
            return x_BW
        if self.training and self.drop:
            known_B = known_B & (torch.rand(known_B.shape, device=known_B.device) >= self.drop)
        return torch.where(known_B[:, None], x_BW, self.missing_embedding.to(x_BW.dtype))


BASAL = ("change", "raw", "none")
MOLECULES = ("vectors", "graph")


def check_options(
    node: str,
    options: Any,
    choices: Mapping[str, Sequence[str]] = MappingProxyType({}),
    rates: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> None:
    """Refuse the values of a group of options that can't be, all in one error.

    Args:
        node: Of the group in the config.
        options: The group.
        choices: Field -> what it may be.
        rates: Fields that are 0 or more and less than 1.
        counts: Fields that are 1 or more.

    Raises:
        InputError: Such values, each with its dotted key.
    """
    given = {name: getattr(options, name) for name in (*choices, *rates, *counts)}
    wrong = [
        *(f"{node}.{name}={given[name]!r} is one of {', '.join(known)}" for name, known in choices.items()
          if given[name] not in known),
        *(f"{node}.{name}={given[name]} is 0 or more and less than 1" for name in rates if not 0 <= given[name] < 1),
        *(f"{node}.{name}={given[name]} is 1 or more" for name in counts if given[name] < 1),
    ]  # fmt: skip
    if wrong:
        raise InputError("; ".join(wrong))


@dataclass(frozen=True)
class MoleculeOptions:
    """How a molecule is encoded.

    Attributes:
        encoder: ``vectors``, an MLP on the data's vectors; or ``graph``: message passing on atoms and bonds.
        dropout: Share of the entries of the vectors dropped in training.
        unknown_rate: Share of samples whose molecule counts as unknown in a training step.
    """

    encoder: str = "vectors"
    dropout: float | int = 0.0
    unknown_rate: float | int = 0.0

    def __post_init__(self) -> None:
        rates = ("dropout", "unknown_rate")
        check_options("model.inputs.molecule", self, {"encoder": MOLECULES}, rates)


@dataclass(frozen=True)
class LineOptions:
    """The vector of a cell line.

    Attributes:
        sd: Standard deviation of a fresh vector's entries.
        unknown_rate: Share of samples whose cell line counts as unknown in a training step.
    """

    sd: float | int = 1.0
    unknown_rate: float | int = 0.0

    def __post_init__(self) -> None:
        check_options("model.inputs.line", self, rates=("unknown_rate",))


@dataclass(frozen=True)
class InputOptions:
    """What is read of a sample, see ``ResponseInputs``.

    Attributes:
        width: Of each part.
        hidden: Hidden width of the encoders.
        dropout: Share of the encoders' hidden units dropped in training.
        basal: Basal profile as ``change`` from the mean cell line in standard deviations, ``raw`` as published, or
            ``none``.
        dose: Whether dose and time are read; published: not.
        unknown: Learned vectors for unknown molecules and cell lines; published: none.
        molecule: Of the molecule.
        line: Of the cell line.
    """

    width: int = 128
    hidden: int = 256
    dropout: float | int = 0.1
    basal: str = "change"
    dose: bool = True
    unknown: bool = True
    molecule: MoleculeOptions = MoleculeOptions()
    line: LineOptions = LineOptions()

    def __post_init__(self) -> None:
        check_options("model.inputs", self, {"basal": BASAL}, ("dropout",), ("width", "hidden"))


@dataclass(frozen=True)
class GeneOptions:
    """The table of a vector gamma for each gene.

    Attributes:
        width: Width D of gamma.
        sd: Of a fresh table's entries; none: 1 / sqrt(D).
        gain: gamma is this times the table's row, so it moves so many times faster than weights; none: sqrt(D), which
            gives its entries the size of a sample's.
    """

    width: int = 128
    sd: float | int | None = None
    gain: float | int | None = None

    def __post_init__(self) -> None:
        check_options("model.genes", self, counts=("width",))

    def table(self, n_genes: int) -> nn.Embedding:
        """A fresh table [G, D]."""
        found = nn.Embedding(n_genes, self.width)
        nn.init.normal_(found.weight, std=self.width**-0.5 if self.sd is None else self.sd)
        return found

    @property
    def factor(self) -> float:
        """What a row of the table is multiplied with."""
        return self.width**0.5 if self.gain is None else self.gain


class ResponseInputs(nn.Module):
    """Basal profile, molecule, cell line, dose and time as one vector of ``width`` numbers each, side by side.

    Args:
        spec: Of drug response.
        options: What is read, and how.

    Attributes:
        features: Width of all parts together.

    Raises:
        InputError: Molecules without vectors or graphs, and nothing to stand in.
    """

    mean_line_G: Tensor
    scale_G: Tensor

    def __init__(self, spec: DrugResponseSpec, options: InputOptions | None = None) -> None:
        super().__init__()
        options = options or InputOptions()
        width, hidden, dropout = options.width, options.hidden, options.dropout
        table = spec.molecules
        if not options.unknown and not table.known.all():
            lacking = [name for name, known in zip(table.id, table.known.tolist(), strict=True) if not known]
            raise InputError(
                f"molecules without a vector: {some(lacking)}; the model has none to learn in their place, so set "
                "model.inputs.unknown=true or data.missing_molecules=drop"
            )
        self.raw, self.n_lines, self.unknown_line_rate = (
            options.basal == "raw",
            len(spec.lines),
            options.line.unknown_rate,
        )
        self.register_buffer("mean_line_G", spec.line_basal.mean(0), persistent=False)
        self.register_buffer("scale_G", spec.basal_scale, persistent=False)
        self.basal = None if options.basal == "none" else DenseEncoder(len(spec.genes), hidden, width, dropout)
        self.molecule: nn.Module
        if options.molecule.encoder == "graph":
            if table.graphs is None:
                raise InputError(
                    "model.inputs.molecule.encoder=graph needs the molecules' graphs, and the data have vectors only; "
                    "set data.molecules to torchcell.drug_response.molecules.MoleculeGraphs"
                )
            self.molecule = MoleculeGraphEncoder(table.graphs, width, drop=options.molecule.unknown_rate)
        else:
            input_dropout, drop = options.molecule.dropout, options.molecule.unknown_rate
            self.molecule = MoleculeVectors(
                table.vectors, table.known, width, hidden, dropout, input_dropout, drop, options.unknown
            )
        self.line_embedding = nn.Embedding(self.n_lines + options.unknown, width)
        nn.init.normal_(self.line_embedding.weight, std=options.line.sd)
        self.dose = DenseEncoder(2, width // 2, width) if options.dose else None
        self.features = width * (2 + (self.basal is not None) + options.dose)

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
        if self.training and self.unknown_line_rate:
            unknown_B = torch.rand(line_B.shape, device=line_B.device) < self.unknown_line_rate
            line_B = torch.where(unknown_B, -1, line_B)
        return torch.where(line_B < 0, self.n_lines, line_B)


HEADS = ("change", "level")
PLATE_START = 2.2
"""Log-odds of q before training, a q of .9: what fits wells of the same plate, and farther than so few steps reach."""


class ResponseModel(Model):
    r"""A subclass gives ``network_output``, a number for each sample and gene; the head makes expression of it.

    .. math::
        \hat y = u + a \, s_g \, \mathrm{output}, \quad u = x + m_{line}

    with the control x, the mean change m of its cell line (of all lines for an unknown one) and the standard deviation
    s of the training changes. So are scored samples predicted, and requests.

    Training samples know the mean c of the other training samples on their plate, as do those that are scored beside
    as ``plate_known``; for them

    .. math::
        u = v + q_g (c - v), \quad v = x + m_{line} + p_g (\bar x_{line} - x)

    The learned p says how much of a control's departure from its cell line is noise, the learned q how much a plate
    tells that its controls do not. So the network learns what departs from a plate, not what a plate has in common,
    which it could not know of another one. Trained without c, as requests are, it learned to read the controls' noise.

    A network partly learns the noise of its training wells, so that it says too much of others: a is 1 in training,
    and elsewhere the weight of least squared error, in units of s, on the validation part (``StackingWeights``). With
    a prior, see ``Model.take_prior``, its prediction is weighed too, as it departs from u. With ``head=level`` the
    output is the prediction, as published.

    Terms: ``phenotype``, the residual in units of s (``level``: squared, in expression's own units); ``correlation``
    and ``plate``, 1 - Pearson over genes of the change from the control and from the plate's center.

    Args:
        spec: Of drug response.
        inputs: What is read of a sample.
        head: ``change`` or ``level``.
        training: ``optimizer``, ``scheduler`` and ``loss_weights``, see ``Model``.
    """

    reads = DrugResponseSpec
    spec: DrugResponseSpec

    mean_G: Tensor
    line_control_LG: Tensor
    line_change_LG: Tensor

    def __init__(
        self,
        spec: DrugResponseSpec,
        inputs: InputOptions | None = None,
        head: str = "change",
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if head == "process":
            raise InputError(
                "model.head=process is now a prior: model.prior=gaussian_process model.prior_use=average, with "
                "model.head=change"
            )
        if head not in HEADS:
            raise InputError(f"model.head={head!r}: choose one of {HEADS}")
        self.head = head
        self.inputs = ResponseInputs(spec, inputs)
        self.scale = spec.change_scale  # an error is counted in units of a change, not of a level
        for name, value in (("mean_G", spec.change_center), ("line_control_LG", spec.line_control)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("line_change_LG", spec.line_treated - spec.line_control, persistent=False)
        self.control_shrinkage: nn.Parameter | None = None
        self.plate_shrinkage: nn.Parameter | None = None
        if head == "change":
            self.stacking = StackingWeights()
            self.control_shrinkage = nn.Parameter(torch.zeros(len(spec.genes)))
            self.plate_shrinkage = nn.Parameter(torch.full((len(spec.genes),), PLATE_START))

    def network_output(self, h_BH: Float[Tensor, "B H"], batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """A number for each sample and gene, in standard deviations of a change."""
        raise NotImplementedError("a model of drug response must define network_output")

    def forward(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """Treated expression in the target's units."""
        return self.express(self.network_output(self.inputs(batch), batch), batch)

    def express(self, output_BG: Tensor, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """What the network's output means in the units of expression."""
        return output_BG if self.head == "level" else self.starting_point(batch) + self.scale * output_BG

    def starting_point(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """u: the control, changed as its cell line on average; with what is known of the plate."""
        line_B, on_line_B1 = batch.line.clamp(min=0), (batch.line >= 0)[:, None]
        alone_BG = batch.input_control + torch.where(on_line_B1, self.line_change_LG[line_B], self.mean_G)
        if self.control_shrinkage is None or self.plate_shrinkage is None:
            return alone_BG
        known_BG = ~torch.isnan(batch.plate_mean)
        departure_BG = self.line_control_LG[line_B] - batch.input_control
        departure_BG = torch.where(known_BG & on_line_B1, departure_BG, 0.0)
        beside_BG = alone_BG + self.control_shrinkage.sigmoid() * departure_BG
        return beside_BG + self.plate_shrinkage.sigmoid() * torch.where(known_BG, batch.plate_mean - beside_BG, 0.0)

    def phenotype_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over the measured values: log-cosh of the residual in standard deviations of a change, or its square."""
        measured = ~torch.isnan(target)
        residual = torch.where(measured, prediction - target, 0.0)
        loss = residual.square() if self.head == "level" else log_cosh(residual / self.scale)
        return (loss * measured).sum() / measured.sum().clamp(min=1)

    def losses(self, batch: ResponseBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The residual, and where the changes point."""
        return super().losses(batch, prediction) | {
            "correlation": profile_distance(prediction, batch.target, batch.input_control),
            "plate": profile_distance(prediction, batch.target, batch.eval_center),
        }

    def set_embeddings(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``inputs``: the encoded basal profile, molecule, line, dose and time [B, H]."""
        return {"inputs": self.inputs(batch)}
