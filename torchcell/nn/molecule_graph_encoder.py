"""Molecules from their atoms and bonds, by message passing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.graph.ranges import expand
from torchcell.nn.ragged import segment_mean

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
        """One row an atom; the layer's input is normalised."""
        h_AW = self.norm(x_AW)
        message_EW = torch.relu(h_AW[index_2E[0]] + e_EW)
        sum_AW = torch.zeros_like(h_AW).index_add(0, index_2E[1], message_EW.to(h_AW.dtype))
        return x_AW + self.mlp((1 + self.epsilon) * h_AW + sum_AW)


class MoleculeGraphEncoder(nn.Module):
    """GINE layers on the molecules of a batch, each encoded once, then the mean over atoms and a linear map.

    Args:
        graphs: All molecules as flat arrays, see ``torchcell.data.molecule_graphs``; buffers that no checkpoint
            repeats and no batch carries.
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

    def __init__(
        self, graphs: Mapping[str, Tensor], width: int = 128, n_layers: int = 3, drop: float | int = 0.0
    ) -> None:
        super().__init__()
        for name in ("atom", "atom_ptr", "bond", "bond_index", "bond_ptr"):
            self.register_buffer(name, graphs[name], persistent=False)
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

        Cut out of the packed arrays, so that cost follows the molecules asked for.
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
