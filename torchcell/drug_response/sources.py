"""The L1000 sets: 1,461 level-3 profiles beside the control of their plate, and 4,621 level-5 signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torchcell.drug_response.drug_identity import drug_names
from torchcell.drug_response.record import Response
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, some, texts
from torchcell.io.h5ad import read_h5ad
from torchcell.io.sources import fetch

LEVEL3 = {"perturbation": "pert_iname", "cell_line": "cell_id", "dose_value": "dose_um", "time": "time_h"}
LEVEL5 = {"perturbation": "struct_id", "cell_line": "cell_id", "dose_value": "dose_um", "time": "time_h"}


@configurable
def l1000_level3(
    cell_lines: str | Sequence[str] | None = None,
    unknown_dose: float | int | None = 10.0,
    unknown_time: float | int | None = 24.0,
) -> Response:
    """Log2 expression of 978 landmark genes after a drug: A375, HT115, and 95 profiles of 42 further lines.

    Four sources were merged; ``source`` tells which. Drugs are named as in ``drug_names``; SMILES whose tail was cut
    off (a mark of mixed stereoisomers) are read without it.

    Args:
        cell_lines: One line, several, or all.
        unknown_dose: µM of the 100 profiles of the source TranSiGen, which tells none: a guess, after the standard
            dose of the public release; null leaves these profiles out.
        unknown_time: Hours of the same profiles; null leaves them out.

    Raises:
        InputError: The file can't be had or is damaged; an unknown line.
    """
    record = Response.from_anndata(
        read_h5ad(*fetch("l1000_level3").values()), LEVEL3, "l1000_level3", keep=("pert_id",)
    )
    assert record.smiles is not None
    whole = np.array([text.split(" ")[0] for text in record.smiles.tolist()])
    lost = {"SMILES read without a tail that was cut off": int((whole != record.smiles).sum())}
    names, keys = drug_names(record.drug, whole)
    dose, time = record.dose_value, record.time
    unknown, kept = ~(np.isfinite(dose) & np.isfinite(time)), np.ones(len(record), dtype=bool)
    what = "profiles without dose and time"
    if unknown_dose is None or unknown_time is None:
        kept = ~unknown
    else:
        what += f", taken as {unknown_dose:g} µM and {unknown_time:g} h"
        dose = np.where(unknown, np.float32(unknown_dose), dose)
        time = np.where(unknown, np.float32(unknown_time), time)
    lost[what] = int(unknown.sum())
    record = replace(record, drug=names, inchikey=keys, smiles=whole, dose_value=dose, time=time, dropped=lost)
    return record.subset(kept).on_lines(cell_lines).validate()


@configurable
def l1000_level5(cell_lines: str | Sequence[str] | None = None) -> Response:
    """Signatures (changes, as z-scores) of 1,356 compounds on 24 lines, all at 10 µM and 24 h.

    A signature is a change already, so ``control`` is zero; ``basal`` is the untreated line's expression, log2.
    ``columns`` holds mechanism (``moa``) and ``targets``, joined by ``|``, empty for 529 compounds. SMILES are
    known of 10 compounds. A line without a basal profile is left out, named and counted in ``dropped``.

    Args:
        cell_lines: One line, several, or all.

    Raises:
        InputError: The files can't be had or are damaged; an unknown line.
    """
    adata = read_h5ad(*fetch("lincs2020_level5").values())
    profiles, known = _basal(adata.var_names.to_numpy(str))
    lines = texts(adata.obs["cell_id"].to_numpy())
    row_of = {line: row for row, line in enumerate(known)}
    has_basal = np.array([line in row_of for line in lines.tolist()])
    lacking = np.unique(lines[~has_basal]).tolist()
    lost = (
        {f"signatures of lines without a basal profile ({some(lacking)})": int((~has_basal).sum())} if lacking else {}
    )
    adata = adata[has_basal].copy()
    adata.obs["plate"] = adata.obs["cell_id"]  # replicates of many plates were merged into one signature
    adata.layers["control"] = np.zeros(adata.shape, dtype=np.float32)
    adata.layers["basal"] = profiles[[row_of[line] for line in lines[has_basal].tolist()]]
    record = Response.from_anndata(adata, LEVEL5, "l1000_level5", keep=("moa", "targets", "name"))
    return replace(record, dropped=lost).on_lines(cell_lines).validate()


def _basal(genes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Untreated expression of each line [L, G] in the order of ``genes``, and the lines' names."""
    import pandas as pd

    (path,) = fetch("l1000_basal").values()
    table = pd.read_csv(path, index_col=0)
    lacking = sorted(set(genes.tolist()) - set(table.columns))
    if lacking:
        raise InputError(f"{path} lacks {len(lacking)} genes of the signatures: {some(lacking)}; fetch it again")
    return table[genes.tolist()].to_numpy(dtype=np.float32), [str(line) for line in table.index]
