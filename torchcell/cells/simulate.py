"""Simulated single cells with known effects of each perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from torchcell.cells.backed import LIBRARY
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.values import Scale
from torchcell.graph.network import Network
from torchcell.io.categorical import Categorical
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.labels import JOIN

CONTROL = "control"
"""Label of the unperturbed cells."""
SIMULATED_LIBRARY = 10_000.0
"""Counts per cell that ``lognorm`` scales to."""


@dataclass(frozen=True, eq=False)
class SimulatedCells:
    """Cells and the changes that were planted.

    Attributes:
        cells: The measured record.
        labels: Perturbations without the control [n_labels]; a double is ``A+B``.
        effect: Planted change of the log mean, float64 [n_labels, G]; of a double the sum of its singles.
    """

    cells: CellExpression
    labels: np.ndarray
    effect: np.ndarray


def simulate_cells(
    n_singles: int = 6,
    n_doubles: int = 2,
    n_genes: int = 40,
    cells_per_condition: int = 40,
    cell_lines: tuple[str, ...] = ("LINE1", "LINE2"),
    scale: Scale = "counts",
    seed: int = 0,
) -> SimulatedCells:
    """Knock down genes one and two at a time, in each line; Poisson counts with a depth per cell.

    A knock-down lowers its own gene by 2 in log mean and moves a fifth of the others by +-1. There are
    three times as many control cells as cells of a perturbation. Same arguments, same bytes.

    Args:
        n_singles: Perturbed genes: the first of the gene list.
        n_doubles: Pairs of them: first and second, second and third, and so on.
        n_genes: Genes measured.
        cells_per_condition: Cells per perturbation and line.
        cell_lines: Their names.
        scale: ``counts``, or ``lognorm``: log1p of counts scaled to 10,000 a cell.
        seed: Seed of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i + 1:04d}" for i in range(n_genes)])
    single = rng.choice((-1.0, 1.0), (n_singles, n_genes)) * (rng.random((n_singles, n_genes)) < 0.2)
    single[np.arange(n_singles), np.arange(n_singles)] = -2.0
    doubles = [(i, i + 1) for i in range(n_doubles)]
    effect = np.concatenate([single, *(single[[i]] + single[[j]] for i, j in doubles)])
    labels = np.array([*genes[:n_singles], *(f"{genes[i]}+{genes[j]}" for i, j in doubles)])
    condition = np.repeat(np.arange(-1, len(labels)), [3 * cells_per_condition] + [cells_per_condition] * len(labels))
    condition = np.tile(condition, len(cell_lines))
    line = np.repeat(np.arange(len(cell_lines)), len(condition) // len(cell_lines))
    batch = rng.integers(0, 2, len(condition))
    log_mean = rng.normal(1.5, 0.7, (len(cell_lines), n_genes))[line]
    log_mean = log_mean + np.concatenate([effect, np.zeros((1, n_genes))])[condition]
    depth = rng.uniform(0.6, 1.4, len(condition))
    counts = rng.poisson(depth[:, None] * np.exp(log_mean)).astype(np.float32)
    if scale == "lognorm":
        total = np.maximum(counts.sum(1, keepdims=True), 1.0)
        counts = np.log1p(counts / total * SIMULATED_LIBRARY).astype(np.float32)
    cells = CellExpression(
        name="simulated_cells",
        X=sparse.csr_matrix(counts),
        perturbation=Categorical.coded([*labels, CONTROL], condition),
        is_control=condition < 0,
        genes=genes,
        sample_id=np.array([f"cell{i:05d}" for i in range(len(condition))]),
        scale=scale,
        covariates={
            "cell_line": Categorical.coded(cell_lines, line),
            "batch": Categorical.coded(["B1", "B2"], batch),
        },
    ).validate()
    return SimulatedCells(cells, labels, effect)


KNOCK_DOWN = -2.0
"""Change of a knocked-down gene's own log mean."""
N_MODULES = 8
"""Groups of regulators that share most of what they regulate."""
LINES: tuple[str, ...] = ("LINE1", "LINE2", "LINE3", "LINE4")


@dataclass(frozen=True, eq=False)
class SimulatedPerturbSeq:
    """Cells and what made them; L labels, C lines, R regulators of G genes.

    Attributes:
        cells: Raw counts with the covariates ``cell_line`` and ``batch``.
        labels: Perturbations without the control [L]; a double is ``A+B``.
        effect: Planted change of the log mean, float64 [C, L, G].
        synergy: What a double adds to the sum of its singles before the line's sensitivity, float64 [L, G].
        module: Module of each regulator, int64 [R]; regulators are the first genes.
        networks: ``interaction`` joins the regulators of a module (undirected), ``regulatory`` runs from a regulator
            to the genes it moves; both incomplete and with a tenth of random edges; ``noise`` is random.
    """

    cells: CellExpression
    labels: np.ndarray
    effect: np.ndarray
    synergy: np.ndarray
    module: np.ndarray
    networks: list[Network]


def simulate_perturbseq(
    n_genes: int = 200,
    n_regulators: int = 48,
    n_doubles: int = 24,
    n_lines: int = 2,
    cells_per_condition: int = 40,
    dropout: float | int = 0.3,
    depth: float | int = 0.7,
    seed: int = 0,
) -> SimulatedPerturbSeq:
    """Knock down each regulator alone, and some in pairs, in each line.

    log mean = basal(line) + sensitivity(line, module) x effect; a single's effect is ``KNOCK_DOWN`` on itself and its
    module's program x its own strength, with a little of its own, spread one step along the regulatory network. A
    double is the sum of its singles and, where the two modules differ, half of what the pair of modules plants. Counts
    are negative binomial with a depth per cell; a count is lost with probability dropout x exp(-its mean).

    Args:
        n_genes: Genes measured, the regulators first.
        n_regulators: Genes that are knocked down.
        n_doubles: Pairs of them.
        n_lines: At most four.
        cells_per_condition: Cells per perturbation and line; five times as many control cells a line.
        dropout: Share of the faintest counts that is lost.
        depth: log mean count of the median gene.
        seed: Of everything that is drawn; same arguments, same bytes.
    """
    if not 1 <= n_lines <= len(LINES):
        raise InputError(f"n_lines={n_lines}: there are {len(LINES)} lines to simulate")
    if not 2 * N_MODULES <= n_regulators <= n_genes:
        raise InputError(f"n_regulators={n_regulators}: must lie between {2 * N_MODULES} and n_genes={n_genes}")
    rng = np.random.default_rng(seed)
    genes = gene_names(n_genes)
    module = np.arange(n_regulators) % N_MODULES
    weights = _regulation(rng, module, n_genes)
    single = weights @ (np.eye(n_genes) + 0.3 * np.vstack([weights, np.zeros((n_genes - n_regulators, n_genes))]))
    single[np.arange(n_regulators), np.arange(n_regulators)] = KNOCK_DOWN
    pairs = _pairs(rng, n_regulators, n_doubles)
    between = _sparse(rng, (N_MODULES, N_MODULES, n_genes), 0.15)
    low, high = np.sort(module[pairs], axis=1).T
    planted = np.where((low != high)[:, None], 0.5 * between[low, high], 0.0)
    synergy = np.concatenate([np.zeros((n_regulators, n_genes)), planted])
    both = single[pairs[:, 0]] + single[pairs[:, 1]] + planted
    sensitivity = rng.uniform(0.6, 1.4, (n_lines, N_MODULES))
    of_single = sensitivity[:, module]
    of_pair = (of_single[:, pairs[:, 0]] + of_single[:, pairs[:, 1]]) / 2
    effect = np.concatenate([of_single, of_pair], axis=1)[:, :, None] * np.concatenate([single, both])
    labels = np.array([*genes[:n_regulators], *(JOIN.join(genes[list(pair)]) for pair in pairs.tolist())])
    cells = _measured(rng, genes, labels, effect, cells_per_condition, dropout, depth)
    networks = perturbseq_networks(n_genes, n_regulators, seed)
    return SimulatedPerturbSeq(cells, labels, effect, synergy, module, networks)


@configurable
def simulated_perturbseq(
    n_genes: int = 200,
    n_regulators: int = 48,
    n_doubles: int = 24,
    n_lines: int = 2,
    cells_per_condition: int = 40,
    dropout: float | int = 0.3,
    library: float | int = LIBRARY,
    seed: int = 0,
) -> Pseudobulk:
    """The cells of ``simulate_perturbseq`` log-normalized, as conditions paired by line."""
    made = simulate_perturbseq(n_genes, n_regulators, n_doubles, n_lines, cells_per_condition, dropout, seed=seed)
    return Pseudobulk.from_cells(made.cells.lognorm(library), ("cell_line",), min(cells_per_condition, 10), seed=seed)


@configurable
def perturbseq_networks(n_genes: int = 200, n_regulators: int = 48, seed: int = 0) -> list[Network]:
    """The networks of ``simulate_perturbseq`` with these arguments; the other arguments do not change them."""
    module = np.arange(n_regulators) % N_MODULES
    weights = _regulation(np.random.default_rng(seed), module, n_genes)
    return _networks(np.random.default_rng([seed, 1]), gene_names(n_genes), module, weights)


def gene_names(n_genes: int) -> np.ndarray:
    """``G0001``, ``G0002``, ... [n_genes]."""
    return np.array([f"G{i + 1:04d}" for i in range(n_genes)])


def _regulation(rng: np.random.Generator, module: np.ndarray, n_genes: int) -> np.ndarray:
    """Change of each gene when a regulator is knocked down, one step, float64 [R, G]."""
    program = _sparse(rng, (N_MODULES, n_genes), 0.2)
    strength = rng.uniform(0.6, 1.4, (len(module), 1))
    return strength * program[module] + _sparse(rng, (len(module), n_genes), 0.04)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Normal effects of sd 0.7 on a ``share`` of the entries, none on the others."""
    return rng.normal(0.0, 0.7, shape) * (rng.random(shape) < share)


def _pairs(rng: np.random.Generator, n: int, n_pairs: int) -> np.ndarray:
    """Distinct pairs i < j of n, int64 [n_pairs, 2]."""
    first, second = np.triu_indices(n, 1)
    if n_pairs > len(first):
        raise InputError(f"n_doubles={n_pairs}: {n} regulators make only {len(first)} pairs")
    chosen = np.sort(rng.permutation(len(first))[:n_pairs])
    return np.stack([first[chosen], second[chosen]], axis=1)


def _measured(
    rng: np.random.Generator,
    genes: np.ndarray,
    labels: np.ndarray,
    effect: np.ndarray,
    cells_per_condition: int,
    dropout: float | int,
    depth: float | int,
) -> CellExpression:
    """Draw the counts, one condition at a time, so that no dense matrix of all cells is made."""
    n_lines, basal = len(effect), rng.normal(depth, 1.0, len(genes))
    counts, label, line = [], [], []
    for c in range(n_lines):
        base = basal + rng.normal(0.0, 0.4, len(genes))
        for i in range(-1, len(labels)):
            n = cells_per_condition if i >= 0 else 5 * cells_per_condition
            mean = np.exp(base + (effect[c, i] if i >= 0 else 0.0)) * rng.uniform(0.6, 1.4, (n, 1))
            drawn = rng.poisson(mean * rng.gamma(5.0, 0.2, mean.shape))
            counts.append(
                sparse.csr_matrix(drawn * (rng.random(mean.shape) >= dropout * np.exp(-mean)), dtype=np.float32)
            )
            label += [labels[i] if i >= 0 else CONTROL] * n
            line += [LINES[c]] * n
    perturbation = np.array(label)
    cells = CellExpression(
        name="simulated_perturbseq",
        X=sparse.vstack(counts, format="csr"),
        perturbation=Categorical.of(perturbation),
        is_control=perturbation == CONTROL,
        genes=genes,
        sample_id=np.array([f"cell{i:06d}" for i in range(len(label))]),
        scale="counts",
        covariates={
            "cell_line": Categorical.of(line),
            "batch": Categorical.coded(["B1", "B2"], rng.integers(0, 2, len(label))),
        },
    )
    return cells.validate()


def _networks(rng: np.random.Generator, genes: np.ndarray, module: np.ndarray, weights: np.ndarray) -> list[Network]:
    same = np.argwhere(np.triu(module[:, None] == module[None, :], 1))
    true = {"interaction": same, "regulatory": np.argwhere(weights != 0), "noise": same[:0]}
    networks: list[Network] = []
    for name, edges in true.items():
        held = edges[rng.random(len(edges)) < 0.7]
        n_random = len(networks[0].source) if name == "noise" else max(len(held) // 9, 1)
        stray = np.stack([rng.integers(0, len(module), n_random), rng.integers(0, len(genes), n_random)], axis=1)
        found = np.unique(np.concatenate([held, stray[stray[:, 0] != stray[:, 1]]]), axis=0)
        ends, weight = genes[found], np.ones(len(found), dtype=np.float32)
        network = Network(name, ends[:, 0], ends[:, 1], weight, directed=name == "regulatory", genes=genes)
        networks.append(network.validate())
    return networks
