"""How the simulated cell grows: genes in modules, modules in stages, pathways, processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchcell.data.errors import InputError

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
