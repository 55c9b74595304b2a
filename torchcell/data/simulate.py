"""Simulated records with a known truth; here the cell: networks, and a screen with replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchcell.data.errors import InputError, some
from torchcell.data.network import Network
from torchcell.data.screen import Screen
from torchcell.data.simulate_cells import SimulatedCells, simulate_cells
from torchcell.data.simulate_design import draw_library, draw_pairs, draw_triples
from torchcell.data.simulate_knowledge_graph import SimulatedGraph, simulate_knowledge_graph
from torchcell.data.simulate_mechanism import Mechanism, plant_mechanism
from torchcell.data.simulate_networks import plant_networks
from torchcell.data.simulate_response import SimulatedResponse, simulate_response

__all__ = [
    "PHENOTYPES",
    "SimulatedCell",
    "SimulatedCells",
    "SimulatedGraph",
    "SimulatedResponse",
    "simulate_cell",
    "simulate_cells",
    "simulate_knowledge_graph",
    "simulate_response",
    "simulated_networks",
    "simulated_screen",
]

PHENOTYPES: tuple[str, ...] = ("gene_interaction", "fitness")
"""What the simulated screen can measure."""


@dataclass(frozen=True, eq=False)
class SimulatedCell:
    """A screen, the networks that hint at it, and the mechanism that made both.

    Attributes:
        screen: Measured sets; ``screen.truth`` is the noiseless phenotype.
        networks: As in ``simulate_networks.NETWORKS``; the last, ``noise``, knows nothing.
        mechanism: Which gene does what; gene i of it is ``screen.genes[i]``.
    """

    screen: Screen
    networks: list[Network]
    mechanism: Mechanism


def simulate_cell(
    n_genes: int = 540,
    n_sets: int = 6000,
    seed: int = 0,
    phenotypes: Sequence[str] = ("gene_interaction",),
    n_queries: int = 48,
    n_arrays: int = 240,
    triple_share: float = 0.2,
    noise_sd: float = 0.055,
    n_replicates: int = 3,
    n_pathways: int = 12,
    n_buffers: int = 30,
) -> SimulatedCell:
    """Draw a cell and screen it as synthetic genetic arrays do: query genes crossed with array genes.

    Pairs are drawn from the grid of queries and arrays, each unordered pair at most once. Triples cross
    pairs of queries with arrays. With ``fitness`` among the phenotypes every screened gene is measured
    alone too, with a missing ``gene_interaction``. Same arguments, same bytes.

    Args:
        n_genes: Genes of the cell, all of which the networks cover.
        n_sets: Perturbation sets, singles included.
        seed: Seed of everything that is drawn.
        phenotypes: Any of ``gene_interaction`` (epsilon of pairs, tau of triples) and ``fitness``, both in
            units of wild-type growth.
        n_queries: Query genes, spread evenly over the pathways.
        n_arrays: Array genes; a third of the queries is among them.
        triple_share: Share of triples among the sets.
        noise_sd: Standard deviation of one replicate, in units of wild-type growth. At the default two
            tables of three replicates each agree at a Pearson of .9 (a test holds it).
        n_replicates: Replicates of each measurement; the phenotype is their mean.
        n_pathways: Pathways, a multiple of 6.
        n_buffers: Pairs of pathways that back each other up.

    Raises:
        InputError: An unknown phenotype, or sizes that do not fit each other.
    """
    unknown = [name for name in phenotypes if name not in PHENOTYPES]
    if unknown or not phenotypes:
        raise InputError(f"phenotypes {list(phenotypes)} of a simulated cell; choose from {some(PHENOTYPES)}")
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i + 1:04d}" for i in range(n_genes)])
    mechanism = plant_mechanism(n_genes, n_pathways, n_buffers, rng)
    networks = plant_networks(mechanism, genes, rng)
    queries, arrays = draw_library(mechanism, n_queries, n_arrays, rng)
    alone = np.union1d(queries, arrays) if "fitness" in phenotypes else np.array([], dtype=np.int64)
    n_triples = round(triple_share * n_sets)
    n_pairs = n_sets - n_triples - len(alone)
    members = np.full((n_sets, 3), -1)
    members[len(alone) : len(alone) + n_pairs, :2] = draw_pairs(queries, arrays, n_pairs, rng)
    members[: len(alone), 0] = alone
    members[n_sets - n_triples :] = draw_triples(mechanism, queries, arrays, n_triples, rng)
    measure = {"gene_interaction": mechanism.interaction, "fitness": mechanism.fitness}
    truth = np.stack([measure[name](members) for name in phenotypes], axis=1)
    error = rng.normal(0.0, noise_sd, (n_sets, n_replicates, len(phenotypes)))
    replicates = (truth[:, None, :] + error).astype(np.float32)
    screen = _screen(genes, members, truth, replicates, tuple(phenotypes)).validate()
    return SimulatedCell(screen, networks, mechanism)


def simulated_screen(**arguments: Any) -> Screen:
    """The screen of ``simulate_cell``, which takes the same arguments."""
    return simulate_cell(**arguments).screen


def simulated_networks(**arguments: Any) -> list[Network]:
    """The networks of ``simulate_cell``, which takes the same arguments."""
    return simulate_cell(**arguments).networks


def _screen(
    genes: np.ndarray,
    members: np.ndarray,
    truth: np.ndarray,
    replicates: np.ndarray,
    phenotypes: tuple[str, ...],
) -> Screen:
    """Pack padded ``members`` [n, 3] into a record; the last gene of a pair or triple is the array gene."""
    size = (members >= 0).sum(1)
    names = [genes[row[:k]].tolist() for row, k in zip(members, size, strict=True)]
    gene = members[members >= 0]
    return Screen(
        name="simulated",
        genes=genes,
        gene=gene,
        ptr=np.concatenate([[0], np.cumsum(size)]),
        kind=np.zeros(len(gene), dtype=np.int8),
        phenotype=replicates.mean(1),
        phenotype_names=phenotypes,
        sample_id=np.array(["|".join(row) for row in names]),
        columns={
            "query": np.array(["|".join(row[: max(len(row) - 1, 1)]) for row in names]),
            "array": np.array([row[-1] if len(row) > 1 else "" for row in names]),
        },
        replicates=replicates,
        truth=truth.astype(np.float32),
    )
