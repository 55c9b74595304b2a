"""``python -m torchcell.embed validate FILE``: is a file of embeddings in order, and have they collapsed?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchcell.data.errors import InputError

if TYPE_CHECKING:
    from torchcell.metrics.embedding_levels import FileBounds

COLLAPSED = 3
"""Exit status of a collapse, where it was asked for."""
SETS = "perturbation sets"
"""What ``uns["rows"]`` says in a file of latents of sets: they share the cell, and are judged after centering."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, print the collapse table; 1 for a file that is no table of embeddings."""
    given = _parser().parse_args(arguments)
    try:
        collapsed = validate(
            given.file, given.ids, given.kind, given.out, given.json, _bounds(given), centered=given.centered
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return COLLAPSED if collapsed and given.fail_on_collapse else 0


def validate(
    file: Path,
    ids: str = "id",
    kind: str | None = None,
    out: Path | None = None,
    json: Path | None = None,
    bounds: FileBounds | None = None,
    centered: bool | None = None,
) -> bool:
    """Check one file, print the level of all nodes and of each kind, and write page and JSON where they are wanted.

    Args:
        file: See ``read_embeddings``.
        ids: Column of the ids.
        kind: Column of the kinds.
        out: Page to write.
        json: File to write the same to, level, reasons and bounds by kind.
        bounds: Of the levels; none: the usual ones.
        centered: Whether the cosine is judged after centering; none: where the rows are sets, see ``holds_sets``.

    Returns:
        Whether all nodes or any kind have collapsed.

    Raises:
        InputError: NaN, vectors of zeros, ids that stand twice, a single node, or a file that can't be read.
    """
    from rich.console import Console

    from torchcell.data.embedding_table import read_embeddings
    from torchcell.metrics.embedding_health import embedding_health, health_guard
    from torchcell.metrics.embedding_levels import FileBounds
    from torchcell.report.embedding_health import health_line, health_sections, print_health, write_health_page
    from torchcell.run.folder import write_json

    for flag, path, ending in (("--out", out, ".html"), ("--json", json, ".json")):
        if path is not None and path.suffix != ending:
            raise InputError(f"{flag} {path}: the name must end in {ending}")
    table = read_embeddings(file, ids, kind).validate(file)
    bounds = replace(bounds or FileBounds(), centered=holds_sets(file) if centered is None else centered)
    found = embedding_health(table.values, table.node_kind, bounds=bounds, whole=True)
    print_health(found)
    if bounds.centered:
        Console().print("cosines are judged after centering, for rows that share something by design", soft_wrap=True)
    written = []
    if out is not None:
        sections = health_sections(table.values, table.node_kind, found)
        written += write_health_page(out, found, sections, {"file": str(file), "nodes": len(table)})
    if json is not None:
        line = health_line(found)
        write_json(json, {"file": str(file), "level": line.partition(":")[0], "text": line} | health_guard(found))
        written.append(json)
    for path in written:
        Console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    return any(one.status == "collapsed" for one in found)


def holds_sets(file: Path) -> bool:
    """Whether ``torchcell.embed`` wrote the file, and its rows are perturbation sets."""
    if file.suffix != ".h5ad":
        return False
    import h5py

    with h5py.File(file) as held:
        rows = held.get("uns/rows")
        return isinstance(rows, h5py.Dataset) and rows.shape == () and rows[()] == SETS.encode()


def _bounds(given: argparse.Namespace) -> FileBounds:
    """The bounds of the command line."""
    from torchcell.metrics.embedding_levels import FileBounds

    return FileBounds(**{one.name: getattr(given, one.name) for one in fields(FileBounds) if one.name != "centered"})


def _parser() -> argparse.ArgumentParser:
    from torchcell.metrics.embedding_levels import FileBounds

    parser = argparse.ArgumentParser(
        prog="python -m torchcell.embed validate",
        description="Check a file of embeddings and print for all nodes and for each kind whether they are healthy, "
        "narrow or collapsed, and by which bound. Read are h5ad (X, obs), npz (ids, vectors, optional kinds), parquet, "
        "CSV and TSV (a row a node, a column a dimension).",
    )
    parser.add_argument("file", type=Path, help="the embeddings")
    parser.add_argument("--ids", default="id", metavar="COLUMN", help="column of the ids (id); else an h5ad's index")
    parser.add_argument("--kind", metavar="COLUMN", help="column of the kinds of node (kind, where there is one)")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write a page with histograms and PCA plots, .html")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write levels, reasons and bounds, .json")
    parser.add_argument(
        "--fail-on-collapse", action="store_true", help=f"leave with status {COLLAPSED} if any kind has collapsed"
    )
    usual, group = FileBounds(), parser.add_argument_group("bounds of the levels, with m = min(dimensions, nodes - 1)")
    for name, text in (
        ("collapsed_cosine", "collapsed: mean cosine above, with few components"),
        ("collapsed_components", "few components: fewer than this, and than SHARE m, for 90 %% of the variance"),
        ("collapsed_within", "collapsed: mean cosine within a kind above"),
        ("healthy_cosine", "narrow: mean cosine above"),
        ("healthy_components", "narrow: fewer components than this, and than SHARE m"),
        ("share", "of m"),
    ):
        default = getattr(usual, name)
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=float, default=default, metavar="NUMBER", help=f"{text} ({default})")
    group.add_argument(
        "--centered",
        action=argparse.BooleanOptionalAction,
        help="judge the cosine after the mean is taken away (default: for sets written by torchcell.embed, which share "
        "the wild-type cell)",
    )
    return parser
