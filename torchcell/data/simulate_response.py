"""Simulated drug response: mechanisms of action, sensitivities and dose curves are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchcell.data.response import Response

N_MECHANISMS = 3


@dataclass(frozen=True, eq=False)
class SimulatedResponse:
    """A response and what made it; drugs and lines are numbered in the order of their names.

    Attributes:
        response: The measured record.
        effect: Noiseless change against control, float32 [n, G].
        mechanism: Mechanism of each drug, int64 [n_drugs].
        program: What a mechanism does to each gene at full effect, float64 [n_mechanisms, G].
        ec50: Concentration of half effect in µM, float64 [n_drugs].
        sensitivity: Of each line to each mechanism, float64 [n_lines, n_mechanisms].
        plate_shift: What a plate adds to treated and control alike, float64 [n_plates, G].
    """

    response: Response
    effect: np.ndarray
    mechanism: np.ndarray
    program: np.ndarray
    ec50: np.ndarray
    sensitivity: np.ndarray
    plate_shift: np.ndarray


def simulate_response(
    n_drugs: int = 8,
    n_lines: int = 3,
    doses: tuple[float, ...] = (0.1, 1.0, 10.0),
    n_genes: int = 30,
    n_replicates: int = 2,
    noise_sd: float = 0.15,
    seed: int = 0,
) -> SimulatedResponse:
    """Treat every line with every drug at every dose, one plate per line and replicate.

    treated = basal(line) + shift(plate) + sensitivity(line, mechanism) x dose / (dose + EC50) x
    program(mechanism) + noise; the control of a plate is one mean of wells, shared by its samples.

    Args:
        n_drugs: Drugs; drug i has mechanism i modulo three.
        n_lines: Cell lines.
        doses: In µM.
        n_genes: Genes measured.
        n_replicates: Plates per line.
        noise_sd: Standard deviation of a well, in units of log expression.
        seed: Seed of everything that is drawn; same arguments, same bytes.
    """
    rng = np.random.default_rng(seed)
    program = rng.normal(0.0, 1.0, (N_MECHANISMS, n_genes)) * (rng.random((N_MECHANISMS, n_genes)) < 0.4)
    mechanism = np.arange(n_drugs) % N_MECHANISMS
    ec50 = rng.uniform(0.3, 3.0, n_drugs)
    sensitivity = rng.uniform(0.5, 1.5, (n_lines, N_MECHANISMS))
    basal = rng.normal(8.0, 1.5, (n_lines, n_genes))
    plate_shift = rng.normal(0.0, 0.3, (n_lines * n_replicates, n_genes))
    # a plate holds 16 control wells, so that its mean is known four times as well as one well
    plate_control = np.repeat(basal, n_replicates, axis=0) + plate_shift
    control = plate_control + rng.normal(0.0, noise_sd / 4, plate_shift.shape)
    grid = np.indices((n_lines, n_replicates, n_drugs, len(doses))).reshape(4, -1)
    line, replicate, drug, level = grid
    dose, plate = np.asarray(doses)[level], line * n_replicates + replicate
    size = sensitivity[line, mechanism[drug]] * dose / (dose + ec50[drug])
    effect = size[:, None] * program[mechanism[drug]]
    treated = plate_control[plate] + effect + rng.normal(0.0, noise_sd, effect.shape)
    drugs = np.array([f"drug{i + 1:02d}" for i in range(n_drugs)])
    lines = np.array([f"LINE{i + 1}" for i in range(n_lines)])
    plates = np.array([f"{name}_P{i + 1}" for name in lines for i in range(n_replicates)])
    parts = zip(drugs[drug], dose, plates[plate], strict=True)
    response = Response(
        name="simulated_response",
        treated=treated.astype(np.float32),
        control=control[plate].astype(np.float32),
        drug=drugs[drug],
        dose_value=dose.astype(np.float32),
        time=np.full(len(drug), 24.0, dtype=np.float32),
        cell_line=lines[line],
        plate=plates[plate],
        genes=np.array([f"G{i + 1:04d}" for i in range(n_genes)]),
        sample_id=np.array([f"{p}|{name}|{value:g}" for name, value, p in parts]),
        smiles=np.array(["C" * (i + 1) + "O" for i in range(n_drugs)])[drug],
    ).validate()
    return SimulatedResponse(response, effect.astype(np.float32), mechanism, program, ec50, sensitivity, plate_shift)
