"""``torchcell.data check``: what a file would be taken for, what is wrong with it, and the command that uses it."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.drug_response.columns import NAMES, likely_columns
from torchcell.io.errors import InputError, near, some
from torchcell.io.labels import CONTROL_WORDS, controls_in
from torchcell.io.paths import located

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.knowledge_graph.record import KnowledgeGraph


FEW_COUNTS = 500
"""Median counts a cell below which most of a profile is the noise of counting."""
OTHER_WORDS = {
    "source": ("head", "subject", "from", "gene1", "gene_1", "gene_a", "node1"),
    "target": ("tail", "object", "to", "gene2", "gene_2", "gene_b", "node2"),
    "edge_type": ("relation", "predicate"),
    "type": ("node_type", "label"),
}
"""Column of a table -> what else it is called."""
USUAL_BATCH = 1024
"""``data.batch_size`` of links."""
PARTS = ("train", "val", "test", "unused")
"""Of a split."""
PERTURBATION_WORDS = ("perturbation", "condition", "gene", "guide", "target", "drug", "treatment", "compound")
"""Words in the name of the column that holds what was done to a cell."""


@dataclass
class Finding:
    """What a file is.

    Attributes:
        path: The file.
        kind: What it would be taken for, e.g. ``a screen``; empty where that is unknown.
        facts: Counts, and what the names and units are.
        notes: What was assumed, or is odd but no error.
        wrong: What must be mended, each with what to do.
        use: The command that uses it.
        genes: Names that another file can be compared with: those perturbed, or the network's.
    """

    path: Path
    kind: str = ""
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    use: str = ""
    genes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block what a reader warns of is a note, and what it refuses is wrong."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                yield
            except InputError as error:
                self.wrong.append(str(error))
        own = {str(one.message): None for one in warned if issubclass(one.category, UserWarning)}
        self.notes += [text.removeprefix(f"{self.path}: ") for text in own]


def check_files(paths: Sequence[str | Path]) -> list[Finding]:
    """Look into files as their readers would; nothing is trained and nothing is written.

    Args:
        paths: Tables (``.csv``, ``.tsv``, ``.parquet``), ``.h5ad`` or ``.zarr``, ``.gct`` or ``.gctx``, ``.npz``. A
            screen and networks, or the nodes and the edges of a knowledge graph, are also looked at together.

    Raises:
        InputError: No such file.
    """
    found = [_check(located(path)) for path in paths]
    screens, networks, nodes, edges, aliases = (
        [one for one in found if one.kind == kind] for kind in (SCREEN, NETWORK, NODES, EDGES, ALIASES)
    )
    for screen in screens:
        for i, network in enumerate(networks):
            _together(screen, network, i, aliases[0].path if aliases and not aliases[0].wrong else None)
    if len(nodes) == len(edges) == 1 and not nodes[0].wrong:
        _knowledge_graph(nodes[0], edges[0])
    for one in found:
        one.use = "" if one.wrong else one.use
    return found


def given(key: str, path: str | Path) -> str:
    """``key=path`` as it can be typed: quoted for the shell and for Hydra where the path has other signs.

    A file's name, or a label in it, may hold what ends a quote of the shell and begins another command.
    """
    if re.fullmatch(r"[\w./~-]+", str(path), flags=re.ASCII):
        return f"{key}={path}"
    text = str(path).replace("\\", "\\\\").replace('"', '\\"') if '"' in str(path) else str(path)
    return shlex.quote(f'{key}="{text}"')


def _check(path: Path) -> Finding:
    finding = Finding(path)
    name = path.name.removesuffix(".gz")
    with finding.reading():
        if name.endswith((".h5ad", ".zarr")):
            _check_anndata(finding)
        elif name.endswith((".gct", ".gctx")):
            _check_plate(finding)
        elif name.endswith(".npz"):
            _check_vectors(finding)
        else:
            _check_table(finding)
    return finding


# Tables ----------------------------------------------------------------------------------------------

SCREEN, NETWORK, NODES, EDGES = "a screen", "a network", "nodes of a knowledge graph", "edges of a knowledge graph"
ALIASES = "gene aliases"


def _check_table(finding: Finding) -> None:
    from torchcell.io.tables import read_table
    from torchcell.knowledge_graph.record import FORMER

    table = read_table(finding.path)
    present = {str(column) for column in table.columns}
    present |= {name for name, former in FORMER.items() if former in present}
    for kind, (wanted, look) in TABLES.items():
        if all(any(name in present for name in names.split("|")) for names in wanted):
            finding.kind = kind
            finding.facts.append(f"{len(table):,} rows, columns {some(table.columns, 8)}")
            look(finding, table)
            return
    named = likely_columns(sorted(present))
    if {"drug", "dose_value", "time", "cell_line"} <= set(named):
        finding.kind = "treatments to predict"
        columns = {what: name for what, name in named.items() if name not in NAMES[what]}
        finding.notes += [f"column {name!r} is taken to be the {what}" for what, name in columns.items()]
        _treatments(finding, table, columns)
        return
    finding.wrong.append(_no_table([str(column) for column in table.columns]))


def _no_table(present: list[str]) -> str:
    """Why columns make no table, with the table that they come nearest to."""
    said = f"its columns {some(present, 12)} make it none of the tables that are read"
    if any(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", name) for name in present):
        return f"{said}: the first line looks like data; write the names of the columns above it"
    if len(present) == 1 and len(present[0].split()) > 1:
        return f"{said}: its columns are separated by blanks; write commas or tabs"
    near_to = {}
    for kind, (wanted, _) in TABLES.items():
        hints = [_meant(names, present) for names in wanted]
        near_to[kind] = sum(map(bool, hints)) / len(hints), hints
    nearest = max(near_to, key=lambda kind: (near_to[kind][0], len(TABLES[kind][0])))
    if not near_to[nearest][0]:
        return f"{said}; a screen needs a column genes (A|B), a network source and target"
    wanted = TABLES[nearest][0]
    pairs = zip(wanted, near_to[nearest][1], strict=True)
    likely = [
        f"{hint!r} for {names.replace('|', ' or ')!r}" for names, hint in pairs if hint and hint not in names.split("|")
    ]
    needs = ", ".join(wanted).replace("|", " or ")
    pair = "; for a screen write both genes in one column genes, as A|B" if nearest == NETWORK else ""
    return f"{said}. The nearest is {nearest}: {needs}" + (f"; rename {', '.join(likely)}" if likely else "") + pair


def _meant(names: str, present: list[str]) -> str:
    """The column that is, or may be meant for, one of the names (``a|b``); empty where there is none."""
    for name in names.split("|"):
        plain = [column for column in present if column.strip().lower() in (name, *OTHER_WORDS.get(name, ()))]
        if found := [column for column in present if column == name] or plain or near(name, present):
            return found[0]
    return ""


def _screen(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.screen.table import ROLES, is_measured, read_perturbations, read_screen

    measured = is_measured(table, finding.path)
    record = read_screen(finding.path) if measured else read_perturbations(finding.path)
    finding.genes = record.genes[np.unique(record.gene)]
    sizes, counts = np.unique(record.sizes, return_counts=True)
    by_size = ", ".join(f"{n:,} of {size} gene(s)" for size, n in zip(sizes.tolist(), counts.tolist(), strict=True))
    finding.facts.append(f"{len(record):,} sets of {len(finding.genes):,} genes: {by_size}")
    finding.facts += [f"left out: {n:,} {what}" for what, n in record.dropped.items()]
    if not measured:
        finding.kind = "perturbation sets to predict"
        finding.use = (
            f"python -m torchcell.predict ckpt=RUN/checkpoints/best.ckpt {given('perturbations', finding.path)}"
        )
        return
    for column, values in zip(record.phenotype_names, record.phenotype.T, strict=True):
        missing = int(np.isnan(values).sum())
        said = f"phenotype {column}: {np.nanmin(values):.4g} to {np.nanmax(values):.4g}, mean {np.nanmean(values):.4g}"
        finding.facts.append(said + (f", {missing:,} missing" if missing else ""))
    unused = [name for name, cells in record.columns.items() if cells.dtype.kind == "U" and name not in ROLES]
    if unused:
        finding.notes.append(f"columns of text are not used: {some(unused)}")
    binary = set(np.unique(record.phenotype[~np.isnan(record.phenotype)]).tolist()) == {0, 1}
    if len(record.phenotype_names) > 1:
        finding.notes.append("every column of numbers is learned; data.record.phenotypes=[NAME] chooses")
    task = " data.record.task=binary" if binary else ""
    finding.use = f"python -m torchcell.train data=screen {given('data.record.path', finding.path)}{task}"


def _network(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.screen.yeast_cell import read_network

    network = read_network(finding.path, "network")
    finding.genes = np.unique(np.concatenate([network.source, network.target]))
    finding.facts.append(f"{len(network.source):,} edges among {len(finding.genes):,} genes")
    if "weight" not in table:
        finding.notes.append("no column weight: every edge weighs 1")
    finding.notes.append("edges are taken to have no direction; graph.networks.0.directed=true says otherwise")
    finding.use = (
        "python -m torchcell.train data=screen data.record.path=SCREEN graph=edge_list "
        f"{given('graph.networks.0.path', finding.path)} model=dango"
    )


def _together(screen: Finding, network: Finding, number: int, aliases: Path | None) -> None:
    """Compare the names of a screen and of a network, by a table of aliases where there is one."""
    from torchcell.io.gene_names import MeasuredGenes, alias_table

    unknown = np.setdiff1d(screen.genes, network.genes)
    names = MeasuredGenes(network.genes, alias_table(aliases))
    cased = [gene for gene in unknown.tolist() if gene.upper() in names.folded]
    remedy = "give data.aliases=FILE, a table of alias and gene"
    if aliases is not None:
        if unclear := names.unclear(unknown.tolist()):
            screen.notes.append(f"{aliases.name}: aliases of several genes are not used: {some(unclear)}")
        unknown = np.array([gene for gene in unknown.tolist() if names.find(gene) is None], dtype=str)
        remedy = f"{aliases.name} does not name them"
    elif cased:
        remedy = f"{len(cased):,} differ in case only: write them alike, or {remedy}"
    known = len(screen.genes) - len(unknown)
    screen.facts.append(f"{known:,} of its {len(screen.genes):,} genes are in {network.path.name}")
    if 2 * len(unknown) > len(screen.genes):
        screen.wrong.append(
            f"most of its genes are not in {network.path.name}: {some(unknown)}, there e.g. {some(network.genes, 3)}; "
            f"{remedy}"
        )
        network.use = ""
    elif len(unknown):
        hint = f"; {remedy}" if cased and aliases is None else ""
        screen.notes.append(f"genes without an edge in {network.path.name}: {some(unknown)}{hint}")
    if number == 0 and not screen.wrong:
        screen.use += f" graph=edge_list {given('graph.networks.0.path', network.path)} model=dango"
        screen.use += "" if aliases is None else f" {given('data.aliases', aliases)}"
        network.use = "with the screen, see above"


def _nodes(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.knowledge_graph.record import FORMER

    types = table["type" if "type" in table else FORMER["type"]].astype(str).value_counts()
    finding.facts.append("node types: " + ", ".join(f"{name} {n:,}" for name, n in types.items()))
    finding.use = "check it together with its edges: python -m torchcell.data check NODES EDGES"


def _edges(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.knowledge_graph.record import FORMER

    types = table["edge_type" if "edge_type" in table else FORMER["edge_type"]].astype(str).value_counts()
    finding.facts.append("edge types: " + ", ".join(f"{name} {n:,}" for name, n in types.items()))
    finding.use = "check it together with its nodes: python -m torchcell.data check NODES EDGES"


def _knowledge_graph(nodes: Finding, edges: Finding) -> None:
    """Read nodes and edges as the one graph that they are."""
    from torchcell.io.tables import read_table
    from torchcell.knowledge_graph.record import FORMER
    from torchcell.knowledge_graph.table import read_knowledge_graph

    before = len(edges.wrong)
    tables = {"type": read_table(nodes.path), "edge_type": read_table(edges.path)}
    columns = {name: FORMER[name] for name, table in tables.items() if name not in table and FORMER[name] in table}
    with edges.reading():
        graph = read_knowledge_graph(nodes.path, edges.path, columns)
        edges.facts.append(f"{len(graph):,} edges that fit the nodes, {len(graph.edge_types)} edge types")
    if len(edges.wrong) == before:
        mapped = f" {_typed('data.record.columns', columns)}" if columns else ""
        nodes.use = (
            f"python -m torchcell.train data=knowledge_graph {given('data.record.nodes', nodes.path)} "
            f"{given('data.record.edges', edges.path)} {given('data.record.supervised', graph.edge_types[0])}"
            f"{mapped}{_batch(graph)}"
        )
        edges.use = "with the nodes, see above"


def _batch(graph: KnowledgeGraph) -> str:
    """A quarter of the training candidates as the batch, where the usual one would hold most of them."""
    n_train = 2 * int((graph.edge_type == graph.edge_types[0]).sum())  # about: beside each edge are sampled non-edges
    return f" data.batch_size={max(n_train // 4, 1)}" if n_train < 2 * USUAL_BATCH else ""


def _treatments(finding: Finding, table: pd.DataFrame, columns: Mapping[str, str] | None = None) -> None:
    from torchcell.drug_response.table import read_response_request

    record = read_response_request(finding.path, np.array(["GENE"]), columns)
    finding.facts.append(_treated(record))
    finding.notes += record.notes
    mapped = f" {_typed('columns', dict(columns))}" if columns else ""
    path = given("perturbations", finding.path)
    finding.use = f"python -m torchcell.predict ckpt=RUN/checkpoints/best.ckpt {path}{mapped}"


def _treated(record: Any) -> str:
    """Drugs, lines, doses and times of a drug response."""
    dose, time = record.dose_value, np.unique(record.time)
    return (
        f"{len(record):,} treatments: {len(np.unique(record.drug)):,} drugs, "
        f"{len(np.unique(record.cell_line)):,} cell lines, doses {dose.min():.4g} to {dose.max():.4g} µM, "
        f"times {', '.join(f'{hours:g}' for hours in time[:6])}{' ...' if len(time) > 6 else ''} h"
    )


def _labels(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.io.labels import genes_of
    from torchcell.io.tables import text_cells

    labels = text_cells(table, "perturbation")
    finding.genes = np.unique([gene for label in labels for gene in genes_of(label)])
    finding.facts.append(f"{len(labels):,} perturbations of {len(finding.genes):,} genes")
    finding.use = (
        f"python -m torchcell.predict ckpt=RUN/checkpoints/best.ckpt {given('perturbations', finding.path)} "
        "controls.path=CONTROL_CELLS.h5ad"
    )


def _gene_features(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.io.gene_features import read_gene_features

    features = read_gene_features(finding.path)
    finding.facts.append(f"{len(features.genes):,} genes with {len(features.columns):,} features")
    finding.use = (
        f"predict and embed take it for genes that training did not have: {given('added_genes', finding.path)}"
    )


def _aliases(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.io.gene_names import alias_table

    alias_table(finding.path)
    finding.use = (
        f"{given('data.aliases', finding.path)} (screens), {given('data.record.matrix.aliases', finding.path)} (cells)"
    )


def _split(finding: Finding, table: pd.DataFrame) -> None:
    counts = table["part"].astype(str).value_counts()
    finding.facts.append(", ".join(f"{part} {n:,}" for part, n in counts.items()))
    unknown = sorted(set(counts.index) - set(PARTS))
    if unknown:
        finding.wrong.append(f"parts {some(unknown)}; they must be among {', '.join(PARTS)}")
    finding.use = f"python -m torchcell.train ... split=file {given('split.file', finding.path)}"


def _structures(finding: Finding, table: pd.DataFrame) -> None:
    finding.use = (
        f"python -m torchcell.data import-gct PLATE.gct OUT.h5ad --structures {shlex.quote(str(finding.path))}"
    )


def _embeddings(finding: Finding, table: pd.DataFrame) -> None:
    from torchcell.io.embeddings import read_embeddings

    embeddings = read_embeddings(finding.path)
    finding.facts.append(f"{len(embeddings):,} vectors of {embeddings.values.shape[1]:,} numbers")
    finding.use = f"python -m torchcell.embed validate {shlex.quote(str(finding.path))}"


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Finding, Any], None]]] = {
    SCREEN: (("genes",), _screen),
    EDGES: (("source", "edge_type", "target"), _edges),
    NETWORK: (("source", "target"), _network),
    NODES: (("id", "name", "type"), _nodes),
    "a split": (("sample_id", "part"), _split),
    ALIASES: (("alias", "gene"), _aliases),
    "treatments to predict": (("drug|perturbation|smiles", "dose_value|dose", "time", "cell_line"), _treatments),
    "perturbations to predict": (("perturbation",), _labels),
    "structures of compounds": (("pert_id|broad_id", "smiles|canonical_smiles"), _structures),
    "features of genes": (("gene",), _gene_features),
    "embeddings": (("id",), _embeddings),
}
"""What a table may be -> the columns that make it so (``a|b``: either), and who looks into it; the first one fits."""


# Files of matrices -----------------------------------------------------------------------------------


def _check_anndata(finding: Finding) -> None:
    from torchcell.cells.table import annotation

    obs = annotation(finding.path, "obs")
    named = likely_columns([str(column) for column in obs.columns])
    if {"drug", "dose_value", "cell_line"} <= set(named):
        _response(finding, {what: name for what, name in named.items() if name not in NAMES[what]})
    else:
        _cells(finding, obs)


def _response(finding: Finding, columns: dict[str, str]) -> None:
    from torchcell.drug_response.table import response_faults, response_file

    finding.kind = "a drug response"
    finding.notes += [f"column {name!r} is taken to be the {what}" for what, name in columns.items()]
    if wrong := response_faults(finding.path, columns):
        finding.wrong += wrong
        return
    record = response_file(finding.path, columns)
    finding.facts += [f"{len(record):,} wells x {len(record.genes):,} genes", _treated(record)]
    known = int((record.smiles != "").sum()) if record.smiles is not None else 0
    finding.facts.append(f"SMILES on {known:,} of {len(record):,} wells")
    finding.notes += record.notes
    if idle := sorted({drug for drug in np.unique(record.drug).tolist() if drug.casefold() in CONTROL_WORDS}):
        finding.notes.append(f"wells of {some(idle)} are no controls by is_control: they count as drugs")
    if not known:
        finding.notes.append("no structures: all drugs that training does not have look alike")
    finding.facts += [f"left out: {n:,} {what}" for what, n in record.dropped.items()]
    mapped = f" {_typed('data.record.columns', columns)}" if columns else ""
    finding.use = f"python -m torchcell.train data=response {given('data.record.path', finding.path)}{mapped}"


def _cells(finding: Finding, obs: pd.DataFrame) -> None:
    from torchcell.cells.table import ConditionOptions, MatrixOptions, cells_file, read_cells

    finding.kind = "single cells"
    column = _perturbation_column(finding, obs)
    if column is None:
        return
    control = _control(finding, obs, column)
    keys: dict[str, Any] = {} if column == "perturbation" else {"columns": {"perturbation": column}}
    if control:
        keys["control"] = control if len(control) > 1 else control[0]
    elif control is None:
        return
    record, refused, matrix = None, [], MatrixOptions(backed=_on_disk(finding.path))
    dropped = ConditionOptions(few_cells="drop")
    for scale in ("counts", "lognorm"):
        try:
            record = cells_file(finding.path, scale, **keys, matrix=matrix, conditions=dropped)
            break
        except InputError as error:
            refused.append(str(error))
    if record is None:
        finding.wrong += dict.fromkeys(refused)
        return
    finding.genes = np.unique([gene for genes in record.targets for gene in genes])
    cells = record.cells
    finding.facts.append(
        f"{len(cells):,} cells x {len(cells.genes):,} genes, {int(cells.is_control.sum()):,} of them controls; "
        f"{len(record):,} conditions of {int(record.sizes.min()):,} to {int(record.sizes.max()):,} cells, "
        f"{len(finding.genes):,} perturbed genes"
    )
    finding.notes += _unmeasured(finding, cells.genes)
    finding.facts.append(f"values: {'raw counts' if scale == 'counts' else 'log-normalized'}")
    finding.facts += [f"left out: {n:,} {what}" for what, n in record.dropped.items()]
    if scale == "counts":
        chunks = read_cells(finding.path, scale, **keys, matrix=matrix).chunks()
        median = float(np.median(np.concatenate([np.asarray(chunk.sum(1)).ravel() for _, chunk in chunks])))
        finding.facts.append(f"median counts a cell: {median:,.0f}")
        if median < FEW_COUNTS:
            finding.notes.append(f"{median:,.0f} counts in the median cell are very few: single genes are mostly noise")
    few = " data.record.conditions.few_cells=drop" if any("fewer" in what for what in record.dropped) else ""
    finding.use = (
        f"python -m torchcell.train data=cells {given('data.record.path', finding.path)} data.record.scale={scale}"
        + "".join(f" {_typed(f'data.record.{key}', value)}" for key, value in keys.items())
        + few
    )


def _unmeasured(finding: Finding, genes: np.ndarray) -> list[str]:
    """A note on the perturbed genes that are not measured, with the column of ``var`` whose names fit best."""
    from torchcell.cells.table import annotation
    from torchcell.io.errors import texts

    lacking = np.setdiff1d(finding.genes, genes)
    if not len(lacking):
        return []
    note = f"{len(lacking):,} of {len(finding.genes):,} perturbed genes are not measured: {some(lacking)}"
    if len(lacking) < len(finding.genes):
        return [note]
    var = annotation(finding.path, "var")
    fits = {str(name): int(np.isin(lacking, texts(var[name].to_numpy())).sum()) for name in var.columns}
    best = max(fits, key=lambda name: fits[name], default="")
    if fits.get(best):
        override = given("data.record.matrix.gene_column", best)
        return [f"{note}; the column {best!r} of var has {fits[best]:,} of them: {override}"]
    return [f"{note}; the measured are called {some(genes, 3)}"]


def _perturbation_column(finding: Finding, obs: pd.DataFrame) -> str | None:
    """The column that holds what was done to a cell; none, and an error, where several may."""
    if "perturbation" in obs:
        return "perturbation"
    text = [str(name) for name in obs.columns if obs[name].dtype.kind not in "fb" and not obs[name].is_unique]
    likely = [name for name in text if any(word in name.lower() for word in PERTURBATION_WORDS)]
    with_control = [name for name in likely if controls_in(obs[name])]
    chosen = with_control or likely
    if len(chosen) == 1:
        finding.notes.append(f"column {chosen[0]!r} is taken to be the perturbation")
        return chosen[0]
    finding.wrong.append(
        f"which column of obs holds the perturbation? It has {some(obs.columns, 12)}; say it as "
        "data.record.columns={perturbation: NAME}" + (f", e.g. {some(chosen)}" if chosen else "")
    )
    return None


def perturbation_column(path: str | Path) -> str:
    """The column of ``obs`` that holds what was done to a cell.

    Raises:
        InputError: No column, or several, may be it.
    """
    from torchcell.cells.table import annotation

    finding = Finding(located(path))
    found = _perturbation_column(finding, annotation(path, "obs"))
    if found is None:
        why = finding.wrong[-1].replace("data.record.columns={perturbation: NAME}", "--by NAME")
        raise InputError(f"{path}: {why}")
    return found


def _control(finding: Finding, obs: pd.DataFrame, column: str) -> list[str] | None:
    """Labels of the control cells; empty where a flag marks them, none where they are unknown."""
    if "is_control" in obs:
        finding.facts.append("controls: by the flag is_control")
        return []
    found = controls_in(obs[column])
    if found:
        finding.notes.append(f"labels {some(found)} are taken to be the control cells")
        return found
    labels = obs[column].astype(str).value_counts()
    finding.wrong.append(
        f"no control cells: no label of {column!r} is called so, e.g. {some(labels.index)}; say it as "
        "data.record.control=LABEL, or add a column is_control"
    )
    return None


def _on_disk(path: Path) -> bool:
    """Whether the values can stay on disk, which those that are stored by columns can't."""
    from torchcell.cells.backed import opened

    root = opened(path)
    return "X" in root and str(root["X"].attrs.get("encoding-type", "")) != "csc_matrix"


def _typed(key: str, value: Any) -> str:
    """An override with a text, a list or a map, as it can be typed."""
    if isinstance(value, str):
        return given(key, value) if not re.fullmatch(r"[\d.]+", value) else f"\"{key}='{value}'\""
    plain = str(value).replace("'", "").replace(", ", ",")
    return shlex.quote(f"{key}={plain}")


def _check_plate(finding: Finding) -> None:
    from torchcell.drug_response.import_gct import import_gct

    finding.kind = "an L1000 plate"
    out = finding.path.name.removesuffix(".gz").rsplit(".", 1)[0] + ".h5ad"
    command = f"python -m torchcell.data import-gct {shlex.quote(str(finding.path))} {shlex.quote(out)}"
    try:
        adata, options = import_gct(finding.path), ""
    except InputError as error:
        try:
            adata, options = import_gct(finding.path, drop_incomplete=True), " --drop-incomplete"
            finding.notes.append(f"{error}; --drop-incomplete leaves them out")
        except InputError:
            raise error from None
    finding.facts.append(
        f"{adata.n_obs:,} wells x {adata.n_vars:,} genes, {int(adata.obs['is_control'].sum()):,} of them controls"
    )
    finding.facts += [f"left out: {n:,} {what}" for what, n in adata.uns["lost"].items()]
    finding.notes += list(adata.uns["notes"])
    finding.use = f"{command}{options}; then python -m torchcell.train data=response {given('data.record.path', out)}"


def _check_vectors(finding: Finding) -> None:
    from torchcell.io.embeddings import read_npz

    finding.kind = "vectors of molecules or nodes"
    table = read_npz(finding.path)
    finding.facts.append(f"{len(table):,} vectors of {table.values.shape[1]:,} numbers, ids {some(table.node_id, 3)}")
    finding.use = (
        "python -m torchcell.train data=response ... data.molecules._target_="
        f"torchcell.drug_response.molecules.MoleculeTable {given('data.molecules.path', finding.path)}"
    )
