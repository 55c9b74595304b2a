"""``python -m torchcell.data list|fetch NAME``: which public sources there are, and getting them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from torchcell.data.errors import InputError
from torchcell.data.sources import Source, data_home, fetch, mirror, registry, source, state


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after a line on what was wrong."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.data",
        description="Public data sources of torchcell: show them, get them.",
        epilog="TORCHCELL_MIRROR names a folder where files are looked for first; TORCHCELL_DATA the folder for "
        "downloads and parsed records (by default the platform's cache folder).",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="show all sources with size, licence and where they are")
    listing.set_defaults(run=_list)
    getting = commands.add_parser("fetch", help="get a source and print the paths of its files")
    getting.add_argument("name", nargs="+", metavar="NAME", help="a name that `list` shows")
    getting.set_defaults(run=_fetch)
    return parser


def _list(_: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    folder = mirror()
    table = Table(caption=f"mirror: {folder or 'TORCHCELL_MIRROR is not set'}; data folder: {data_home()}")
    for column, how in (
        ("name", {"no_wrap": True}), ("files", {"justify": "right"}), ("MB", {"justify": "right"}),
        ("from", {}), ("here", {"no_wrap": True}), ("content", {}), ("licence", {}),
    ):  # fmt: skip
        table.add_column(column, overflow="fold", **how)
    for entry in registry().values():
        table.add_row(*_row(entry))
    # A pipe or a log file has no width of its own, and rich would assume 80.
    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)


def _row(entry: Source) -> tuple[str, ...]:
    size = sum(file.bytes for file in entry.files) / 1e6
    origin = sorted({"URL" if file.url else "mirror only" for file in entry.files})
    here = sorted({state(file) for file in entry.files})
    return (
        entry.name, str(len(entry.files)), f"{size:.1f}", ", ".join(origin), "/".join(here), entry.content,
        entry.licence,
    )  # fmt: skip


def _fetch(chosen: argparse.Namespace) -> None:
    for name in chosen.name:  # an unknown name is told before anything is downloaded
        source(name)
    for name in chosen.name:
        for path in fetch(name).values():
            print(path)


if __name__ == "__main__":
    sys.exit(main())
