"""``python -m torchcell.data VERB``: list, fetch, check, import-gct, select-genes, export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torchcell.io.command import in_one_line
from torchcell.io.errors import InputError, one_line, readable
from torchcell.io.paths import data_home
from torchcell.io.sources import Source, fetch, mirror, registry, source, state

SELECT, EXPORT = "select-genes", "export"
"""The verbs here with Hydra's arguments, key=value."""


@in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after a line on what was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [SELECT]:
        _select_genes(given[1:])
        return 0
    if given[:1] == [EXPORT] and not {"-h", "--help"} & set(given):
        return _export(given[1:])
    parser = _parser()
    chosen = parser.parse_args(arguments)
    status: int | None = chosen.run(chosen)
    return status or 0


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
    checking = commands.add_parser(
        "check",
        help="what a file of yours would be taken for, what is wrong with it, and the command that uses it",
        description="Looks into tables, h5ad or zarr, GCT and npz files as training and predictions would. Ends with "
        "1 if something must be mended. A screen and its network, or nodes and edges, may be given together.",
    )
    checking.add_argument("file", nargs="+", metavar="FILE")
    checking.set_defaults(run=_check)
    _add_import_gct(commands)
    _add_prepare(commands)
    commands.add_parser(SELECT, help="the genes that a run would choose, key=value arguments; see select-genes --help")
    commands.add_parser(
        EXPORT,
        help="data with its split, for other programs: benchmark=NAME split.fold=0 out=FOLDER",
        description="Writes the data of a benchmark with the column split (train, val, test): data.csv of a screen, "
        "else data.h5ad; of cells split.csv and cell_load.toml too. Arguments: benchmark=NAME, out=FOLDER and those "
        "of a training run, e.g. split=NAME split.fold=0. torchcell.evaluate predictions=FILE judges what comes back.",
    )
    return parser


def _add_import_gct(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    importing = commands.add_parser(
        "import-gct",
        help="L1000 plates (GCT 1.3, GCTX) to h5ad, each well beside the control of its plate",
        description="Reads .gct, .gct.gz or .gctx files and writes one h5ad file that data=response reads.",
    )
    importing.add_argument(
        "file", nargs="+", metavar="FILE", help="a .gct, .gct.gz or .gctx file, or several: genes are matched by name"
    )
    importing.add_argument("out", metavar="OUT", help="the .h5ad file to write")
    importing.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="INTERNAL=NAME",
        help="what the file calls perturbation, cell_line, dose_value (µM), time (h), plate, kind, pert_id, smiles, "
        "inchikey or gene, where it is not called as in the LINCS files; e.g. plate=rna_plate",
    )
    importing.add_argument(
        "--control",
        default="ctl_vehicle",
        metavar="LABEL",
        help="pert_type or perturbation of the control wells, e.g. DMSO",
    )
    importing.add_argument(
        "--match",
        default="centroid",
        choices=("centroid", "paired", "signatures"),
        help="control of a well: mean of its plate's control wells, one of them, or zero (values are changes already)",
    )
    importing.add_argument("--seed", type=int, default=0, help="of the pairs (default 0)")
    importing.add_argument(
        "--drop-incomplete",
        action="store_true",
        help="leave out wells without dose, time, line or value, not refuse them",
    )
    importing.add_argument(
        "--structures", metavar="FILE", help="a table of smiles (and InChIKey) by pert_id, for files that hold none"
    )
    importing.set_defaults(run=_import_gct)


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    preparing = commands.add_parser(
        "prepare",
        help="cells of an h5ad file as a zarr folder that is read fast, grouped by condition",
        description="Writes AnnData's zarr v3 in shards, with the cells of a condition together. The file is only "
        "read; a command that was stopped goes on where it was.",
    )
    preparing.add_argument("file", metavar="FILE", help="an .h5ad file or a .zarr folder")
    preparing.add_argument("out", metavar="OUT", help="the .zarr folder to write")
    preparing.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of obs to group by: the perturbation, then what a cell and its controls share, e.g. cell_type "
        "(default: the column of perturbations)",
    )
    preparing.add_argument("--layer", metavar="NAME", help="take the values of this layer, not X; raw: adata.raw")
    preparing.set_defaults(run=_prepare)


def _export(arguments: Sequence[str]) -> int:
    """Write the data and the split that a training run with these arguments would have."""
    from torchcell.training.entry import composed, refuse_missing
    from torchcell.training.judge import export

    out = [one.partition("=")[2] for one in arguments if one.startswith("out=")]
    if len(out) != 1 or not out[0]:
        raise InputError("name the folder to write: out=FOLDER")
    cfg = composed("config", [one for one in arguments if not one.startswith("out=")])
    refuse_missing(cfg)
    benchmark = next((one.partition("=")[2] for one in arguments if one.startswith("benchmark=")), str(cfg.name))
    for path in export(cfg, Path(out[0]), benchmark):
        print(readable(f"wrote {path}"))
    return 0


def _list(_: argparse.Namespace) -> None:
    from rich.table import Table

    from torchcell.io.console import Console

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
            print(readable(path))


def _check(chosen: argparse.Namespace) -> int:
    from torchcell.check_file import check_files

    findings = check_files(chosen.file)
    for finding in findings:
        print(one_line(f"{finding.path}: {finding.kind or 'not understood'}"))
        for head, lines in (("", finding.facts), ("note", finding.notes), ("error", finding.wrong)):
            for line in lines:
                print(one_line(f"  {head:6}{line}"))
        if finding.use:
            print(one_line(f"  use   {finding.use}"))
    return int(any(finding.wrong for finding in findings))


def _import_gct(chosen: argparse.Namespace) -> None:
    from torchcell.drug_response.import_gct import import_gct
    from torchcell.io.cache import atomic_write
    from torchcell.io.paths import refuse_unwritable

    columns = {}
    for pair in chosen.columns:
        internal, equals, name = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--columns {pair!r} is not of the form INTERNAL=NAME, e.g. plate=rna_plate")
        columns[internal] = name
    if not chosen.out.endswith(".h5ad"):
        raise InputError(f"{chosen.out}: the file to write must end in .h5ad")
    refuse_unwritable(chosen.out, "the file to write")
    adata = import_gct(
        chosen.file, columns, chosen.control, chosen.match, chosen.seed, chosen.drop_incomplete, chosen.structures
    )
    with atomic_write(chosen.out) as temporary:
        adata.write_h5ad(temporary)
    plates, controls = adata.obs["plate"].nunique(), int(adata.obs["is_control"].sum())
    print(
        readable(
            f"{adata.n_obs:,} wells x {adata.n_vars:,} genes, {controls:,} of them controls, on {plates:,} plate(s)"
        )
    )
    known = adata.obs.loc[~adata.obs["is_control"], "smiles"] != ""
    print(readable(f"SMILES on {int(known.sum()):,} of {len(known):,} treated wells"))
    for what, number in adata.uns["lost"].items():
        print(one_line(f"left out: {number:,} {what}"))
    for note in adata.uns["notes"]:
        print(one_line(f"note: {note}"))
    print(readable(chosen.out))


def _prepare(chosen: argparse.Namespace) -> None:
    from torchcell.cells.prepare import prepare
    from torchcell.check_file import given, perturbation_column
    from torchcell.io.paths import refuse_unwritable

    refuse_unwritable(chosen.out, "the folder to write")
    made = prepare(chosen.file, chosen.out, chosen.by or [perturbation_column(chosen.file)], chosen.layer)
    print(readable(f"{made.n_cells:,} cells x {made.n_genes:,} genes, {made.n_bytes / 1e6:,.0f} MB of expression"))
    use = f"python -m torchcell.train benchmark=cells {given('data.record.path', made.path)} data.sampling=blocks"
    print(readable(f"use   {use} data.record.matrix.backed=true"))


def _select_genes(arguments: Sequence[str]) -> None:
    """Hand over to the entry point of that name, by its name: data imports nothing that stands above it."""
    import runpy

    sys.argv = [f"python -m torchcell.data {SELECT}", *arguments]
    runpy.run_module("torchcell.select_genes", run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
