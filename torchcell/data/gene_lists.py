"""Lists of genes: a text file, a table, GMT or JSON, or one of the lists that torchcell knows by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchcell.data.errors import InputError, near
from torchcell.data.places import located
from torchcell.data.sources import fetch
from torchcell.data.tables import ENDINGS, read_table, refuse_spoiled_names, require_columns, text_cells

if TYPE_CHECKING:
    from torchcell.data.conditions import Conditions

KNOWN: dict[str, tuple[str, ...]] = {
    "transcription_factor": ("transcription_factor",),
    "cell_cycle": ("cell_cycle_S", "cell_cycle_G2M"),
    "metabolic": ("metabolic",),
    "pluripotency": ("pluripotency",),
}
"""Name -> its sets in the source ``gene_modules``; the hallmark sets are known by their own names besides."""


class GeneList:
    """A list of genes as a source of a selection.

    Args:
        name: What ``genes.csv`` calls it; without ``path`` also which list it is, see ``KNOWN``.
        quota: Genes to take; none: all that are measured.
        path: A text file (a gene a line), a table with the column ``gene``, a GMT or a JSON file (set -> genes).
        sets: Of a GMT or JSON file, the sets to take; none: all.
        order: Which are taken where there are more: the most ``variable`` in training, or the first ``listed``.
    """

    def __init__(
        self,
        name: str,
        quota: int | None = None,
        path: str | Path | None = None,
        sets: str | Sequence[str] | None = None,
        order: Literal["variable", "listed"] = "variable",
    ) -> None:
        if order not in ("variable", "listed"):
            raise InputError(f"gene list {name!r}: order={order!r}; it must be variable or listed")
        self.name, self.quota, self.path, self.sets, self.order = name, quota, path, sets, order

    def symbols(self, train: Conditions) -> list[str]:
        """The genes of the list as it names them, each once."""
        wanted = [self.sets] if isinstance(self.sets, str) else self.sets
        return known_list(self.name) if self.path is None else read_gene_list(self.path, wanted)


def known_list(name: str) -> list[str]:
    """A list by its name, e.g. ``transcription_factor`` or ``HALLMARK_HYPOXIA``.

    Raises:
        InputError: No list of that name; the message names the nearest.
    """
    (path,) = fetch("gene_modules").values()
    modules = json.loads(path.read_text(encoding="utf-8"))
    hallmarks = modules.pop("hallmark")
    sets: dict[str, list[str]] = {**modules, **hallmarks}
    sets |= {known: [gene for part in parts for gene in modules[part]] for known, parts in KNOWN.items()}
    if name not in sets:
        raise InputError(f"no gene list named {name!r}; the nearest are {near(name, list(sets)) or list(KNOWN)}")
    return list(dict.fromkeys(sets[name]))


def read_gene_list(path: str | Path, sets: Sequence[str] | None = None) -> list[str]:
    """The genes of a file in its order, each once.

    Args:
        path: ``.gmt``, ``.json`` (set -> genes, or a list), a table with the column ``gene``, else a gene a line.
        sets: Of a GMT or JSON file the sets to take; none: all.

    Raises:
        InputError: No such file, an unknown set, no genes.
    """
    path = located(path, "no gene list")
    if path.name.removesuffix(".gz").endswith(ENDINGS):
        table = read_table(path)
        require_columns(path, table, ["gene"])
        genes = text_cells(table, "gene")
    elif path.suffix in (".gmt", ".json"):
        genes = _of_sets(path, _read_gmt(path) if path.suffix == ".gmt" else _read_json(path), sets)
    else:
        genes = [line.split("#")[0].strip() for line in _text(path).splitlines()]
    refuse_spoiled_names(path, "gene", genes)
    found = list(dict.fromkeys(gene for gene in genes if gene))
    if not found:
        raise InputError(f"{path} names no genes")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text file: {error}; give a list of gene symbols") from error


def _read_gmt(path: Path) -> dict[str, list[str]]:
    """Lines ``set, description, gene, gene, ...`` between tabs."""
    rows = [line.split("\t") for line in _text(path).splitlines() if line.strip()]
    short = [row[0] for row in rows if len(row) < 3]
    if short:
        raise InputError(f"{path}: set {short[0]!r} has no genes; a GMT line is set, description, genes, between tabs")
    return {row[0]: [gene.strip() for gene in row[2:]] for row in rows}


def _read_json(path: Path) -> Mapping[str, list[str]]:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise InputError(f"{path} can't be read as JSON: {error}") from error
    sets = {path.stem: found} if isinstance(found, list) else found
    odd = [name for name, genes in sets.items() if not isinstance(genes, list)] if isinstance(sets, dict) else ["it"]
    if odd:
        raise InputError(f"{path}: {odd[0]!r} is no list of genes; a JSON file maps a set's name to its genes")
    return sets


def _of_sets(path: Path, found: Mapping[str, list[str]], sets: Sequence[str] | None) -> list[str]:
    for name in sets or ():
        if name not in found:
            raise InputError(
                f"{path} has no set {name!r}; the nearest are {near(name, list(found)) or list(found)[:5]}"
            )
    return [gene for name in (sets or found) for gene in found[name]]
