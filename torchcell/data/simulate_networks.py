"""Networks of the simulated cell: each carries part of the truth and some noise, one carries none."""

from __future__ import annotations

import numpy as np

from torchcell.data.network import Network
from torchcell.data.simulate_mechanism import Mechanism

NETWORKS: dict[str, tuple[float, float]] = {
    "physical": (0.45, 0.20),
    "coexpression": (0.15, 0.40),
    "pathway": (0.60, 0.10),
    "regulatory": (0.70, 0.20),
    "noise": (0.00, 1.00),
}
"""Network -> (share of its true edges that it holds, share of its edges that are random).

True edges: ``physical`` joins the genes of a module; ``coexpression`` those of a pathway; ``pathway``
those of a pathway among the half of the genes that are annotated; ``regulatory`` runs from a regulator
to the genes of its module. ``noise`` has as many random edges as ``coexpression`` has edges.
"""


def plant_networks(mechanism: Mechanism, genes: np.ndarray, rng: np.random.Generator) -> list[Network]:
    """Draw the networks of ``NETWORKS`` over ``genes`` [n_genes], in that order."""
    networks: list[Network] = []
    for name, (coverage, noise) in NETWORKS.items():
        true = true_edges(mechanism, name, rng)
        held = true[rng.random(len(true)) < coverage]
        by_name = {network.name: network for network in networks}
        n_random = len(by_name["coexpression"].source) if noise == 1 else round(len(held) * noise / (1 - noise))
        edges = np.concatenate([held, _random_edges(len(genes), n_random, held, rng)])
        edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
        networks.append(
            Network(
                name=name,
                source=genes[edges[:, 0]],
                target=genes[edges[:, 1]],
                weight=np.ones(len(edges), dtype=np.float32),
                directed=name == "regulatory",
                genes=genes,
            ).validate()
        )
    return networks


def true_edges(mechanism: Mechanism, name: str, rng: np.random.Generator) -> np.ndarray:
    """All gene pairs that the network would hold if it were complete, int64 [E, 2]."""
    module, pathway, regulator = mechanism.module, mechanism.gene_pathway, mechanism.regulator
    n_genes = len(module)
    if name == "noise":
        return np.empty((0, 2), dtype=np.int64)
    if name == "regulatory":
        hit = regulator[:, None] & ~regulator[None, :] & (module[:, None] == module[None, :])
        return np.argwhere(hit & (module[:, None] >= 0))
    group = np.where(regulator, -1, module if name == "physical" else pathway)
    if name == "pathway":
        group = np.where(rng.random(n_genes) < 0.5, group, -1)
    return np.argwhere(np.triu((group[:, None] == group[None, :]) & (group[:, None] >= 0), 1))


def _random_edges(n_genes: int, n_edges: int, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``n_edges`` distinct random pairs i < j outside of ``taken`` (in either direction), int64 [n_edges, 2]."""
    first, second = np.triu_indices(n_genes, 1)
    used = np.zeros((n_genes, n_genes), dtype=bool)
    used[taken.min(1, initial=n_genes), taken.max(1, initial=-1)] = True
    free = np.flatnonzero(~used[first, second])
    chosen = rng.choice(free, n_edges, replace=False)
    return np.stack([first[chosen], second[chosen]], axis=1)
