"""A plate of four genes and six wells as a GCT text, to be changed cell by cell."""

from __future__ import annotations

from pathlib import Path

WELLS = ["P1:A01", "P1:A02", "P1:A03", "P2:A01", "P2:A02", "P2:A03"]
ABOUT = {
    "cell_id": ["A375"] * 6,
    "det_plate": ["P1"] * 3 + ["P2"] * 3,
    "pert_dose": ["-666", "10", "500", "-666", "-666", "1"],
    "pert_dose_unit": ["-666", "um", "nM", "-666", "-666", "µM"],
    "pert_id": ["DMSO", "BRD-1", "BRD-2", "DMSO", "DMSO", "BRD-1"],
    "pert_iname": ["DMSO", "one", "two", "DMSO", "DMSO", "one"],
    "pert_time": ["24"] * 6,
    "pert_type": ["ctl_vehicle", "trt_cp", "trt_cp", "ctl_vehicle", "ctl_vehicle", "trt_cp"],
}
VALUES = [[float(10 * gene + well) for well in range(6)] for gene in range(4)]
SYMBOLS = ["TP53", "MYC", "EGFR", "JUN"]


def gct(
    about: dict[str, list[str]] | None = None,
    values: list[list[object]] | None = None,
    counts: str | None = None,
    symbols: list[str] = SYMBOLS,
    wells: list[str] = WELLS,
) -> str:
    about, values = {**ABOUT, **(about or {})}, values or VALUES  # type: ignore[assignment]
    lines = ["#1.3", counts or f"{len(values)}\t{len(wells)}\t2\t{len(about)}"]
    lines.append("\t".join(["id", "pr_gene_id", "pr_gene_symbol", *wells]))
    lines += ["\t".join([name, "na", "na", *cells]) for name, cells in about.items()]
    for i, row in enumerate(values):
        lines.append("\t".join([f"{i}_at", str(100 + i), symbols[i], *map(str, row)]))
    return "\n".join(lines) + "\n"


def written(folder: Path, text: str, name: str = "plate.gct") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name
