"""Simulated drug response with known effects, and structures that tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from torchcell.drug_response.record import Response
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError

CORES: tuple[str, ...] = (
    "c1ccc({})cc1", "c1ccc2cc({})ccc2c1", "c1ccc({})nc1", "c1cnc({})nc1", "c1cnc({})cn1", "c1ccc2nc({})ccc2c1",
    "c1ccc2cnc({})cc2c1", "c1ccc2nc({})ncc2c1", "c1ccc2nc({})cnc2c1", "c1ccc2[nH]c({})cc2c1", "c1ccc2[nH]nc({})c2c1",
    "c1ccc2[nH]c({})nc2c1", "c1ccc2oc({})cc2c1", "c1ccc2sc({})cc2c1", "c1cc({})sc1", "c1cc({})oc1", "c1cc({})[nH]c1",
    "c1nc({})sc1", "c1nc({})oc1", "c1c[nH]c({})n1", "c1c[nH]nc1({})", "C1CCC({})CC1", "C1CCN({})CC1", "C1CCC({})C1",
    "C1COC({})CO1", "c1ccc(Oc2ccc({})cc2)cc1", "c1ccc(-c2ccc({})cc2)cc1", "c1ccc(Cc2ccc({})cc2)cc1",
    "c1ccc2c(c1)[nH]c1ccc({})cc12", "c1ccc2c(c1)oc1ccc({})cc12",
)  # fmt: skip
"""A ring system with the place of the reactive group; a decoration is written in front."""

GROUPS: tuple[str, ...] = (
    "CC(=O)NO", "CS(N)(=O)=O", "CC(=O)O", "CC#N", "CB(O)O", "CP(O)(O)=O", "CNC(N)=N", "CNC(=O)C=C", "COC(F)(F)F",
    "CNC(N)=O", "CC(N)=S", "CN(C)C",
)  # fmt: skip
"""What binds the target; none has a ring, so that the core alone is the scaffold."""

DECORATIONS: tuple[str, ...] = ("F", "Cl", "C", "O", "Br", "CC", "CO", "CCC")
"""In front of the core; larger ones come later."""


def simulated_smiles(core: int, group: int, decoration: int) -> str:
    """SMILES of the decorated core with its reactive group, each by its number.

    Raises:
        InputError: There are 30 cores, 12 groups and 8 decorations, so 240 drugs of 12 targets.
    """
    numbers = {"ring systems": (core, CORES), "targets": (group, GROUPS), "drugs a scaffold": (decoration, DECORATIONS)}
    for what, (number, choices) in numbers.items():
        if number >= len(choices):
            raise InputError(f"too many {what}: there are {len(choices)}; ask for fewer drugs or targets")
    return DECORATIONS[decoration] + CORES[core].format(GROUPS[group])


LINES: tuple[str, ...] = ("A375", "A549", "BT20", "HELA", "HT29", "MCF7", "MDAMB231", "PC3", "VCAP")
"""The nine lines of the L1000 study; nothing but their names is taken from it."""
DRUGS_PER_SCAFFOLD = 4
TARGETS_PER_PATHWAY = 3
MARKERS = 3
"""Genes whose basal expression tells how sensitive a line is to a target."""


@dataclass(frozen=True, eq=False)
class SimulatedResponse:
    """A response and what made it; drugs, lines and plates are numbered in the order of their names.

    Attributes:
        response: The measured record; ``columns`` names each drug's target and pathway.
        effect: Noiseless change against control, float32 [n, G].
        target: Target of each drug, int64 [n_drugs].
        pathway: Pathway of each target, int64 [n_targets].
        program: What hitting a target does to each gene at full effect, float64 [n_targets, G].
        ec50: Concentration of half effect in µM, float64 [n_drugs].
        sensitivity: Of each line to each target, float64 [n_lines, n_targets].
        plate_shift: What a plate adds to treated and control alike, float64 [n_plates, G].
    """

    response: Response
    effect: np.ndarray
    target: np.ndarray
    pathway: np.ndarray
    program: np.ndarray
    ec50: np.ndarray
    sensitivity: np.ndarray
    plate_shift: np.ndarray


def simulate_response(
    n_drugs: int = 120,
    n_lines: int = 9,
    doses: Sequence[float | int] = (0.1, 1.0, 10.0),
    n_genes: int = 200,
    n_replicates: int = 2,
    coverage: float | int = 0.62,
    noise_sd: float | int = 0.15,
    seed: int = 0,
) -> SimulatedResponse:
    """Treat cell lines with drugs at several doses, one plate per cell line and replicate.

    treated = basal(line) + shift(plate) + sensitivity(line, target) x dose / (dose + EC50) x program(target) + noise.
    A target's program is its pathway's and its own; drugs of one scaffold share a target, all drugs of a target share a
    reactive group, and the decoration of the scaffold sets the EC50. A cell line's sensitivity shows in the basal
    expression of the target's marker genes. The control of a plate is the mean of 16 wells.

    Args:
        n_drugs: Drugs, four a scaffold, at most 120.
        n_lines: Of ``LINES``, at most nine.
        doses: In µM.
        n_genes: Genes measured.
        n_replicates: Plates per cell line.
        coverage: Share of all (cell line, drug, dose) that is measured, with all replicates.
        noise_sd: Standard deviation of a well, in units of log expression.
        seed: Seed of everything that is drawn; same arguments, same bytes.
    """
    if not 1 <= n_lines <= len(LINES):
        raise InputError(f"n_lines={n_lines}: there are {len(LINES)} lines to simulate")
    rng = np.random.default_rng(seed)
    scaffold, decoration = np.divmod(np.arange(n_drugs), DRUGS_PER_SCAFFOLD)
    target, pathway = scaffold % len(GROUPS), np.arange(len(GROUPS)) // TARGETS_PER_PATHWAY
    program = _sparse(rng, (pathway.max() + 1, n_genes))[pathway] + _sparse(rng, (len(GROUPS), n_genes))
    ec50 = 0.05 * np.exp(rng.normal(0.0, 0.3, n_drugs)) * 3.0**decoration
    sensitivity, basal = _cell_lines(rng, n_lines, n_genes)
    plate_shift = rng.normal(0.0, 0.3, (n_lines * n_replicates, n_genes))
    plate_control = np.repeat(basal, n_replicates, axis=0) + plate_shift
    control = plate_control + rng.normal(0.0, noise_sd / 4, plate_shift.shape)
    line, drug, level, replicate = _design(rng, (n_lines, n_drugs, len(doses)), n_replicates, coverage)
    dose, plate = np.asarray(doses, dtype=np.float64)[level], line * n_replicates + replicate
    size = sensitivity[line, target[drug]] * dose / (dose + ec50[drug])
    effect = size[:, None] * program[target[drug]]
    treated = plate_control[plate] + effect + rng.normal(0.0, noise_sd, effect.shape)
    smiles = np.array([simulated_smiles(*row) for row in zip(scaffold, target, decoration, strict=True)])
    plates = np.array([f"{name}_P{i + 1}" for name in LINES[:n_lines] for i in range(n_replicates)])
    response = _record(treated, control[plate], dose, np.array(LINES)[line], plates[plate], drug)
    labels = {"targets": np.array([f"T{i + 1:02d}" for i in target])[drug]}
    labels["moa"] = np.array([f"pathway {i + 1}" for i in pathway[target]])[drug]
    response = replace(response, smiles=smiles[drug], columns=labels).validate()
    return SimulatedResponse(
        response, effect.astype(np.float32), target, pathway, program, ec50, sensitivity, plate_shift
    )


def _cell_lines(rng: np.random.Generator, n_lines: int, n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity of each cell line to each target, and its basal expression, in which markers show it."""
    log_sensitivity = rng.normal(0.0, 0.5, (n_lines, len(GROUPS)))
    basal = rng.normal(8.0, 1.5, (n_lines, n_genes))
    for number in range(len(GROUPS)):
        marker = rng.choice(n_genes, MARKERS, replace=False)
        basal[:, marker] = 8.0 + 2.0 * log_sensitivity[:, [number]] + rng.normal(0.0, 0.2, (n_lines, MARKERS))
    return np.exp(log_sensitivity), basal


def _record(
    treated: np.ndarray, control: np.ndarray, dose: np.ndarray, line: np.ndarray, plate: np.ndarray, drug: np.ndarray
) -> Response:
    """The samples by name; ``drug`` is the number of each one's."""
    drugs = np.array([f"drug{i + 1:03d}" for i in range(int(drug.max()) + 1)])[drug]
    rows = zip(plate, drugs, dose, strict=True)
    return Response(
        name="simulated_response",
        treated=treated.astype(np.float32),
        control=control.astype(np.float32),
        drug=drugs,
        dose_value=dose.astype(np.float32),
        time=np.full(len(drugs), 24.0, dtype=np.float32),
        cell_line=line,
        plate=plate,
        genes=np.array([f"G{i + 1:04d}" for i in range(treated.shape[1])]),
        sample_id=np.array([f"{place}|{name}|{value:g}" for place, name, value in rows]),
    )


@configurable
def simulated_response(
    cell_lines: str | Sequence[str] | None = None,
    n_drugs: int = 120,
    doses: Sequence[float | int] = (0.1, 1.0, 10.0),
    n_genes: int = 200,
    n_replicates: int = 2,
    noise_sd: float | int = 0.15,
    seed: int = 0,
) -> Response:
    """The record of ``simulate_response`` on nine lines: one of them, several, or all."""
    made = simulate_response(
        n_drugs=n_drugs, doses=doses, n_genes=n_genes, n_replicates=n_replicates, noise_sd=noise_sd, seed=seed
    )
    return made.response.on_lines(cell_lines)


def _sparse(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal effects on a third of the genes, none on the others."""
    return rng.normal(0.0, 1.0, shape) * (rng.random(shape) < 0.33)


def _design(
    rng: np.random.Generator, shape: tuple[int, int, int], n_replicates: int, coverage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Line, drug, dose and replicate of each sample [n]; replicates of a condition are measured all or none."""
    condition = np.arange(np.prod(shape))
    kept = np.sort(rng.permutation(condition)[: max(round(len(condition) * coverage), 1)])
    line, drug, level = np.unravel_index(np.repeat(kept, n_replicates), shape)
    return line, drug, level, np.tile(np.arange(n_replicates), len(kept))
