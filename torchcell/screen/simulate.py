"""A simulated cell with a known mechanism: networks, and a screen with replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchcell.graph.network import Network
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, some
from torchcell.screen.record import Screen

STAGES: tuple[int, ...] = (1, 1, 1, 2)
"""Parallel modules at each stage of a pathway: three stages stand alone, the fourth is duplicated."""


@dataclass(frozen=True, eq=False)
class Mechanism:
    """Growth of a cell that has lost some genes, without noise.

    A module is as weak as its most damaged gene. Parallel modules of a stage stand in for each other:
    the stage loses the product of their losses. A pathway is as weak as its weakest stage, a process as
    its weakest pathway. Growth is the product over processes of 1 - importance x loss, over pairs of
    pathways that buffer each other of 1 - c x loss x loss, and over triads of pathways of 1 - c x loss x
    loss x loss. Hence, for the genes of one module, pathway or process the interaction is positive; for
    duplicated modules and for buffering pathways it is negative; and a triad shows only if all three are hit.

    Attributes:
        module: Module of each gene, int64 [n_genes]; -1 for a gene without a role.
        severity: Share of its module's activity that a gene's loss takes away, float64 [n_genes].
        regulator: Whether a gene acts on its module from outside, bool [n_genes].
        pathway: Pathway of each module, int64 [n_modules].
        stage: Stage of each module within its pathway, int64 [n_modules].
        process: Process of each pathway, int64 [n_pathways].
        importance: Share of growth that a whole loss of the process takes away, float64 [n_processes].
        buffers: Pairs of pathways that back each other up, int64 [n_buffers, 2].
        buffer_strength: c of each pair, float64 [n_buffers].
        triads: Three pathways that back each other up, int64 [n_triads, 3].
        triad_strength: c of each triad, float64 [n_triads].
    """

    module: np.ndarray
    severity: np.ndarray
    regulator: np.ndarray
    pathway: np.ndarray
    stage: np.ndarray
    process: np.ndarray
    importance: np.ndarray
    buffers: np.ndarray
    buffer_strength: np.ndarray
    triads: np.ndarray
    triad_strength: np.ndarray

    @property
    def gene_pathway(self) -> np.ndarray:
        """Pathway of each gene, int64 [n_genes]; -1 for a gene without a role."""
        return np.where(self.module < 0, -1, self.pathway[self.module])

    @property
    def exposed(self) -> np.ndarray:
        """Genes whose loss alone weakens the pathway: their stage has no second module, bool [n_genes]."""
        return (self.module >= 0) & (np.array(STAGES)[self.stage[self.module]] == 1)

    def pathway_loss(self, members: np.ndarray) -> np.ndarray:
        """Share of each pathway's activity that is lost, float64 [n, n_pathways].

        Args:
            members: Deleted genes per sample, int64 [n, k]; -1 fills the rows of smaller sets.
        """
        n_pathways, n_stages = len(self.process), len(STAGES)
        module = np.where(members < 0, -1, self.module[members])
        row, column = np.nonzero(module >= 0)
        lost = np.zeros((len(members), len(self.pathway)))
        np.maximum.at(lost, (row, module[row, column]), self.severity[members[row, column]])
        stage_loss = np.ones((len(members), n_pathways, n_stages))
        for index, place in enumerate(zip(self.pathway, self.stage, strict=True)):
            stage_loss[:, place[0], place[1]] *= lost[:, index]
        return stage_loss.max(2)

    def fitness(self, members: np.ndarray) -> np.ndarray:
        """Growth relative to the wild type, float64 [n]; ``members`` as in ``pathway_loss``."""
        loss = self.pathway_loss(members)
        growth = np.ones(len(members))
        for process, importance in enumerate(self.importance):
            growth *= 1 - importance * loss[:, self.process == process].max(1)
        for group, strength in (
            (self.buffers, self.buffer_strength),
            (self.triads, self.triad_strength),
        ):
            growth *= (1 - strength * loss[:, group].prod(2)).prod(1)
        return growth

    def interaction(self, members: np.ndarray) -> np.ndarray:
        """Deviation of growth from what single genes and pairs explain by multiplication, float64 [n].

        Pairs: epsilon_ij = f_ij - f_i f_j (Costanzo et al. 2010). Triples: tau_ijk = f_ijk - f_i f_j f_k
        - epsilon_ij f_k - epsilon_ik f_j - epsilon_jk f_i (Kuzmin et al. 2018). Singles: NaN.
        """
        result = np.full(len(members), np.nan)
        size = (members >= 0).sum(1)
        pairs, triples = members[size == 2, :2], members[size == 3]
        result[size == 2] = self._epsilon(pairs)
        if len(triples):
            single = [self.fitness(triples[:, [i]]) for i in range(3)]
            tau = self.fitness(triples) - single[0] * single[1] * single[2]
            for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
                tau -= self._epsilon(triples[:, [i, j]]) * single[k]
            result[size == 3] = tau
        return result

    def _epsilon(self, pairs: np.ndarray) -> np.ndarray:
        return self.fitness(pairs) - self.fitness(pairs[:, :1]) * self.fitness(pairs[:, 1:])


def plant_mechanism(n_genes: int, n_pathways: int, n_buffers: int, rng: np.random.Generator) -> Mechanism:
    """Draw a mechanism; a tenth of the genes has no role, a tenth regulates a module from outside.

    Pathways 3t, 3t + 1 and 3t + 2 form triad t; pathways p and p + n_pathways / 2 form a process; buffers
    join pathways that share neither, so that no pair of a triad's pathways interacts.

    Raises:
        InputError: ``n_pathways`` not a multiple of 6, too few genes, more buffers than pathway pairs.
    """
    n_modules = n_pathways * sum(STAGES)
    if n_pathways < 6 or n_pathways % 6:
        raise InputError(f"n_pathways is {n_pathways}; a multiple of 6 is needed for triads and processes")
    if n_genes < 2 * n_modules:
        raise InputError(f"n_genes is {n_genes}; {n_pathways} pathways need at least {2 * n_modules} genes")
    module, regulator = np.full(n_genes, -1), np.zeros(n_genes, dtype=bool)
    order = rng.permutation(n_genes)[n_genes // 10 :]  # the first tenth is left without a role
    module[order] = np.arange(len(order)) % n_modules
    regulator[order[-(n_genes // 10) :]] = True
    parts = [stage for stage, width in enumerate(STAGES) for _ in range(width)]
    pathway_index = np.arange(n_pathways)
    process, triad = pathway_index % (n_pathways // 2), pathway_index // 3
    first, second = np.triu_indices(n_pathways, 1)
    free = np.flatnonzero((process[first] != process[second]) & (triad[first] != triad[second]))
    if n_buffers > len(free):
        raise InputError(f"n_buffers is {n_buffers}; {n_pathways} pathways leave room for {len(free)}")
    chosen = np.sort(rng.choice(free, n_buffers, replace=False))
    return Mechanism(
        module=module,
        severity=rng.uniform(0.5, 1.0, n_genes),
        regulator=regulator,
        pathway=np.repeat(pathway_index, sum(STAGES)),
        stage=np.tile(parts, n_pathways),
        process=process,
        importance=rng.uniform(0.25, 0.45, n_pathways // 2),
        buffers=np.stack([first[chosen], second[chosen]], axis=1),
        buffer_strength=rng.uniform(0.5, 0.9, n_buffers),
        triads=pathway_index.reshape(-1, 3),
        triad_strength=rng.uniform(0.6, 0.9, n_pathways // 3),
    )


ARRAYS_PER_QUERY_PAIR = 40
"""Array genes that each pair of query genes is crossed with."""


def draw_library(
    mechanism: Mechanism, n_queries: int, n_arrays: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose query genes and array genes.

    Query genes weaken growth when lost alone, as those of real screens do, and come in turn from each
    pathway. Array genes are any genes; a third of the queries is among them.

    Returns:
        Queries int64 [n_queries] and arrays int64 [n_arrays].
    """
    n_genes, pathway = len(mechanism.module), mechanism.gene_pathway
    order = rng.permutation(np.flatnonzero(mechanism.exposed))
    if not 2 <= n_queries <= min(n_arrays, len(order)) or n_queries + n_arrays > n_genes:
        raise InputError(
            f"{n_queries} query and {n_arrays} array genes do not fit: of {n_genes} genes {len(order)} can be "
            "queries, there must be as many arrays as queries, and both together at most all genes"
        )
    rank = np.zeros(n_genes, dtype=np.int64)  # how many genes of its pathway stand before a gene in the order
    for index in range(len(mechanism.process)):
        of_pathway = order[pathway[order] == index]
        rank[of_pathway] = np.arange(len(of_pathway))
    queries = order[np.argsort(rank[order], kind="stable")][:n_queries]
    both = rng.permutation(queries)[: n_queries // 3]
    others = rng.permutation(np.setdiff1d(np.arange(n_genes), queries))[: n_arrays - len(both)]
    return queries, np.sort(np.concatenate([both, others]))


def draw_pairs(queries: np.ndarray, arrays: np.ndarray, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct unordered pairs [query, array], uniform over the grid, int64 [n_pairs, 2]."""
    grid = np.stack(np.meshgrid(queries, arrays, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid[grid[:, 0] != grid[:, 1]]
    _, first = np.unique(np.sort(grid, axis=1), axis=0, return_index=True)
    if not 0 < n_pairs <= len(first):
        raise InputError(f"{n_pairs} pairs cannot be drawn; the queries and arrays allow 1 to {len(first)}")
    return grid[np.sort(rng.choice(first, n_pairs, replace=False))]


def draw_triples(
    mechanism: Mechanism, queries: np.ndarray, arrays: np.ndarray, n_triples: int, rng: np.random.Generator
) -> np.ndarray:
    """Distinct triples [query, query, array], int64 [n_triples, 3]: pairs of queries crossed with arrays.

    Every second query pair hits two pathways of one triad. Half of a pair's arrays come from the triads
    of its genes, as a follow-up screen would choose them; the other half are any.
    """
    pathway = mechanism.gene_pathway
    triad = np.where(pathway < 0, -1, pathway // 3)
    first, second = np.triu_indices(len(queries), 1)
    pairs = rng.permutation(np.stack([queries[first], queries[second]], axis=1))
    a, b = pairs.T
    linked = (triad[a] == triad[b]) & (pathway[a] != pathway[b])
    in_turn = [pair for two in zip(pairs[linked], pairs[~linked], strict=False) for pair in two]
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for pair in in_turn:
        if len(found) >= n_triples:
            break
        allowed = np.setdiff1d(arrays, pair)
        related = rng.permutation(allowed[np.isin(triad[allowed], triad[pair])])[: ARRAYS_PER_QUERY_PAIR // 2]
        rest = rng.permutation(np.setdiff1d(allowed, related))[: ARRAYS_PER_QUERY_PAIR - len(related)]
        for array in np.concatenate([related, rest]).tolist():
            triple = (*pair.tolist(), array)
            found.setdefault(tuple(sorted(triple)), triple)
    if n_triples > len(found):
        raise InputError(f"{n_triples} triples cannot be drawn; the queries and arrays gave {len(found)}")
    return np.array(list(found.values()), dtype=np.int64).reshape(-1, 3)[:n_triples]


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
        covered = true[rng.random(len(true)) < coverage]
        by_name = {network.name: network for network in networks}
        n_random = len(by_name["coexpression"].source) if noise == 1 else round(len(covered) * noise / (1 - noise))
        edges = np.concatenate([covered, _random_edges(len(genes), n_random, covered, rng)])
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


PHENOTYPES: tuple[str, ...] = ("gene_interaction", "fitness")
"""What the simulated screen can measure."""


@dataclass(frozen=True, eq=False)
class SimulatedCell:
    """A screen, the networks that hint at it, and the mechanism that made both.

    Attributes:
        screen: Measured sets; ``screen.truth`` is the noiseless phenotype.
        networks: As in ``NETWORKS``; the last, ``noise``, knows nothing.
        mechanism: Which gene does what; gene i of it is ``screen.genes[i]``.
    """

    screen: Screen
    networks: list[Network]
    mechanism: Mechanism


@dataclass(frozen=True)
class CellDesign:
    """What ``simulate_cell`` draws.

    Attributes:
        n_genes: Genes of the cell, all of which the networks cover.
        n_sets: Perturbation sets, singles included.
        seed: Seed of everything that is drawn.
        phenotypes: Any of ``gene_interaction`` (epsilon of pairs, tau of triples) and ``fitness``, both in
            units of wild-type growth.
        n_queries: Query genes, spread evenly over the pathways.
        n_arrays: Array genes; a third of the queries is among them.
        triple_share: Fraction of triples among the sets.
        noise_sd: Standard deviation of one replicate, in units of wild-type growth. At the default two
            tables of three replicates each agree at a Pearson of .9 (a test holds it).
        n_replicates: Replicates of each measurement; the phenotype is their mean.
        n_pathways: Pathways, a multiple of 6.
        n_buffers: Pairs of pathways that back each other up.

    Raises:
        InputError: An unknown phenotype.
    """

    n_genes: int = 540
    n_sets: int = 6000
    seed: int = 0
    phenotypes: Sequence[str] = ("gene_interaction",)
    n_queries: int = 48
    n_arrays: int = 240
    triple_share: float = 0.2
    noise_sd: float = 0.055
    n_replicates: int = 3
    n_pathways: int = 12
    n_buffers: int = 30

    def __post_init__(self) -> None:
        """Check the phenotypes; sizes are checked against each other as they are drawn."""
        if not self.phenotypes or set(self.phenotypes) - set(PHENOTYPES):
            raise InputError(f"phenotypes {list(self.phenotypes)} of a simulated cell; choose from {some(PHENOTYPES)}")


def simulate_cell(design: CellDesign = CellDesign()) -> SimulatedCell:
    """Draw a cell and screen it as synthetic genetic arrays do: query genes crossed with array genes.

    Pairs are drawn from the grid of queries and arrays, each unordered pair at most once. Triples cross
    pairs of queries with arrays. With ``fitness`` among the phenotypes every screened gene is measured
    alone too, with a missing ``gene_interaction``. The same design gives the same bytes.

    Raises:
        InputError: Sizes that do not fit each other.
    """
    n_sets, phenotypes = design.n_sets, tuple(design.phenotypes)
    rng = np.random.default_rng(design.seed)
    genes = np.array([f"G{i + 1:04d}" for i in range(design.n_genes)])
    mechanism = plant_mechanism(design.n_genes, design.n_pathways, design.n_buffers, rng)
    networks = plant_networks(mechanism, genes, rng)
    queries, arrays = draw_library(mechanism, design.n_queries, design.n_arrays, rng)
    alone = np.union1d(queries, arrays) if "fitness" in phenotypes else np.array([], dtype=np.int64)
    n_triples = round(design.triple_share * n_sets)
    n_pairs = n_sets - n_triples - len(alone)
    members = np.full((n_sets, 3), -1)
    members[len(alone) : len(alone) + n_pairs, :2] = draw_pairs(queries, arrays, n_pairs, rng)
    members[: len(alone), 0] = alone
    members[n_sets - n_triples :] = draw_triples(mechanism, queries, arrays, n_triples, rng)
    measure = {"gene_interaction": mechanism.interaction, "fitness": mechanism.fitness}
    truth = np.stack([measure[name](members) for name in phenotypes], axis=1)
    error = rng.normal(0.0, design.noise_sd, (n_sets, design.n_replicates, len(phenotypes)))
    replicates = (truth[:, None, :] + error).astype(np.float32)
    screen = _screen(genes, members, truth, replicates, phenotypes).validate()
    return SimulatedCell(screen, networks, mechanism)


@configurable
def simulated_screen(**design: Any) -> Screen:
    """The screen of ``simulate_cell``; the arguments are the fields of ``CellDesign``."""
    return simulate_cell(CellDesign(**design)).screen


@configurable
def simulated_networks(**design: Any) -> list[Network]:
    """The networks of ``simulate_cell``; the arguments are the fields of ``CellDesign``."""
    return simulate_cell(CellDesign(**design)).networks


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
