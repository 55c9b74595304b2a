"""``python -m torchcell.embed validate FILE``: is a file of embeddings in order, and have they collapsed?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torchcell.data.errors import InputError

COLLAPSED = 3
"""Exit status of a collapse, where it was asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, print the collapse table; 1 for a file that is no table of embeddings."""
    given = _parser().parse_args(arguments)
    try:
        collapsed = validate(given.file, given.ids, given.kind, given.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return COLLAPSED if collapsed and given.fail_on_collapse else 0


def validate(file: Path, ids: str = "id", kind: str | None = None, out: Path | None = None) -> bool:
    """Check one file, print the health of each kind of node, and write the page where it is wanted.

    Args:
        file: See ``read_embeddings``.
        ids: Column of the ids.
        kind: Column of the kinds.
        out: Page to write.

    Returns:
        Whether any kind has collapsed.

    Raises:
        InputError: NaN, vectors of zeros, ids that stand twice, a single node, or a file that can't be read.
    """
    from rich.console import Console

    from torchcell.data.embedding_table import read_embeddings
    from torchcell.metrics.embedding_health import embedding_health
    from torchcell.report.embedding_health import health_sections, print_health, write_health_page

    if out is not None and out.suffix != ".html":
        raise InputError(f"--out {out}: the name must end in .html")
    table = read_embeddings(file, ids, kind).validate(file)
    found = embedding_health(table.values, table.node_kind)
    print_health(found)
    if out is not None:
        sections = health_sections(table.values, table.node_kind, found)
        for path in write_health_page(out, found, sections, {"file": str(file), "nodes": len(table)}):
            Console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    return any(one.status == "collapsed" for one in found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.embed validate",
        description="Check a file of embeddings and print for each kind of node whether they have collapsed. Read are "
        "h5ad (X, obs), npz (ids, vectors, optional kinds), parquet, CSV and TSV (a row a node, a column a dimension).",
    )
    parser.add_argument("file", type=Path, help="the embeddings")
    parser.add_argument("--ids", default="id", metavar="COLUMN", help="column of the ids (id); else an h5ad's index")
    parser.add_argument("--kind", metavar="COLUMN", help="column of the kinds of node (kind, where there is one)")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write a page with histograms and PCA plots, .html")
    parser.add_argument(
        "--fail-on-collapse", action="store_true", help=f"leave with status {COLLAPSED} if any kind has collapsed"
    )
    return parser
