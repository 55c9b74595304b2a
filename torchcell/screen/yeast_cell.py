"""Networks, metabolism and Gene Ontology of yeast."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from torchcell.graph.network import GeneRules, Network, rule_genes
from torchcell.io.cache import cached_record
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, near, some
from torchcell.io.gene_names import ORF, yeast_gene_names, yeast_symbols
from torchcell.io.sources import fetch
from torchcell.screen.yeast_phenome import yeast_phenome

ONTOLOGY_RECIPE = 1  # raise it when a parser changes, so that no older cache is read


@configurable
def yeast_gene_ontology(reverse: bool = True) -> list[Network]:
    """Direct annotations and the hierarchy of terms, all directed, weight 1.

    Args:
        reverse: Add ``annotates`` from term to gene.

    Returns:
        ``annotated`` gene -> term and ``is_a`` child -> parent.
    """
    parsers = {"annotated": _annotated, "is_a": _hierarchy}
    if reverse:
        parsers["annotates"] = _annotates
    return [
        cached_record(
            Network,
            f"ontology-{name}",
            ["yeast_go", "yeast_gene_names"],
            {"recipe": ONTOLOGY_RECIPE, "network": name},
            parse,
        )
        for name, parse in parsers.items()
    ]


def _annotated() -> Network:
    """One row a term, its genes' symbols joined by |; a symbol may be an ORF or an alias."""
    import pandas as pd

    path = fetch("yeast_go")["GO_annotations-559292-direct-allev.tsv"]
    table = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    symbols = [cell.split("|") for cell in table["gene_symbols"]]
    term = np.repeat(table["go_id"].to_numpy(dtype=str), [len(cell) for cell in symbols])
    listed = [symbol for cell in symbols for symbol in cell]
    found, lost = yeast_gene_names().resolve_all(listed)
    orf = np.array(
        [name or (symbol if ORF.fullmatch(symbol) else "") for name, symbol in zip(found, listed, strict=True)]
    )
    pairs = np.unique(np.stack([orf[orf != ""], term[orf != ""]]), axis=1)
    lost["annotations of genes without an ORF"] = int((orf == "").sum())
    ones = np.ones(pairs.shape[1], dtype=np.float32)
    return Network("annotated", pairs[0], pairs[1], ones, directed=True, dropped=lost, target_type="term")


def _annotates() -> Network:
    there = _annotated()
    return Network("annotates", there.target, there.source, there.weight, directed=True, source_type="term")


def _hierarchy() -> Network:
    """Two columns without header, child and parent, written GO_0043232."""
    path = fetch("yeast_go")["yeast_go_child_2_parent.txt"]
    rows = [line.replace("GO_", "GO:").split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    child, parent = np.array(rows, dtype=str).T
    ones = np.ones(len(child), dtype=np.float32)
    return Network("is_a", child, parent, ones, directed=True, source_type="term", target_type="term")


METABOLISM_RECIPE = 2  # raise it when a parser changes, so that no older cache is read


@configurable
def yeast_metabolism(reverse: bool = True) -> list[Network]:
    """Genes, reactions and metabolites of yeast-GEM as directed networks.

    Args:
        reverse: Add what carries messages back from reactions to genes, and from metabolites to what makes them.

    Returns:
        ``catalyses`` gene -> reaction, weight 1, for each gene of the reaction's rule; ``produces`` reaction ->
        metabolite and ``consumed_by`` metabolite -> reaction, weight the stoichiometric coefficient's size. A
        reversible reaction produces its substrates and consumes its products too; one that only runs backwards has
        them exchanged. With ``reverse`` also ``catalysed_by`` and ``produced_by``.
    """
    parsers: dict[str, Callable[[], Network]] = {
        "catalyses": _catalyses,
        "produces": lambda: _stoichiometry("produces"),
        "consumed_by": lambda: _stoichiometry("consumed_by"),
    }
    if reverse:
        parsers["catalysed_by"] = lambda: _turned(_catalyses(), "catalysed_by")
        parsers["produced_by"] = lambda: _turned(_stoichiometry("produces"), "produced_by")
    return [
        cached_record(
            Network, f"metabolism-{name}", ["yeast_gem"], {"recipe": METABOLISM_RECIPE, "network": name}, parse
        )
        for name, parse in parsers.items()
    ]


@configurable
def yeast_gene_rules() -> GeneRules:
    """Which reactions of yeast-GEM are lost with which genes: its rules of ``and`` and ``or``."""
    return cached_record(
        GeneRules,
        "metabolism-rules",
        ["yeast_gem"],
        {"recipe": METABOLISM_RECIPE},
        lambda: GeneRules.parse("reaction", {r["id"]: r.get("gene_reaction_rule", "") for r in reactions()}),
    )


@cache
def reactions() -> list[dict[str, Any]]:
    """The reactions of the model as mappings; about 3 s, once a process and only where nothing is cached."""
    import yaml

    path = fetch("yeast_gem")["yeast-GEM.yml"]
    try:
        model = dict(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
        found = [dict(reaction) for reaction in model["reactions"]]
        for reaction in found:  # YAML reads 1e-06 as text
            reaction["metabolites"] = {name: float(value) for name, value in reaction["metabolites"]}
        return found
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no genome-scale model as yeast-GEM writes it: {error}") from error


def _catalyses() -> Network:
    """Every gene that a rule names, also where a smaller set suffices: YBR128C stands in redundant sets only."""
    rules = [(reaction["id"], reaction.get("gene_reaction_rule", "")) for reaction in reactions()]
    pairs = sorted((gene, reaction) for reaction, rule in rules for gene in rule_genes(rule))
    gene, reaction = np.array(pairs, dtype=str).T
    ones = np.ones(len(pairs), dtype=np.float32)
    return Network("catalyses", gene, reaction, ones, directed=True, target_type="reaction")


def _stoichiometry(name: str) -> Network:
    """``produces`` or ``consumed_by``."""
    wanted = 1 if name == "produces" else -1
    edges = [(r, m, size) for r, m, size, role in _roles() if role == wanted]
    reaction, metabolite = (np.array(column, dtype=str) for column in list(zip(*edges, strict=True))[:2])
    weight = np.array([size for _, _, size in edges], dtype=np.float32)
    ends = [(reaction, "reaction"), (metabolite, "metabolite")][::wanted]
    (source, source_type), (target, target_type) = ends
    return Network(name, source, target, weight, True, source_type=source_type, target_type=target_type)


def _roles() -> Iterator[tuple[str, str, float, int]]:
    """Reaction, metabolite, size of its coefficient, and 1 where it is made or -1 where it is used up."""
    for reaction in reactions():
        directions = [1] * (reaction["upper_bound"] > 0) + [-1] * (reaction["lower_bound"] < 0)
        for metabolite, coefficient in reaction["metabolites"].items():
            for direction in directions or [1]:  # a blocked reaction keeps the direction it is written in
                yield reaction["id"], metabolite, abs(coefficient), 1 if coefficient * direction > 0 else -1


def _turned(network: Network, name: str) -> Network:
    return Network(
        name,
        network.target,
        network.source,
        network.weight,
        directed=True,
        source_type=network.target_type,
        target_type=network.source_type,
    )


STRING_CHANNELS = ("neighborhood", "database", "cooccurence", "fusion")
RECIPE = 1  # raise it when a parser changes, so that no older cache is read


@configurable
def yeast_networks(names: Sequence[str] | None = None) -> list[Network]:
    """The named networks of yeast, in that order; by default all seven.

    Args:
        names: Of ``neighborhood, database, cooccurence, fusion`` (STRING v9.1 channels, weight is the confidence),
            ``physical`` (BioGRID), ``coexpression`` (weight is the correlation) and ``regulatory`` (YEASTRACT,
            directed from transcription factor to target). None of them is made from a genetic interaction screen.

    Raises:
        InputError: An unknown name, or a file that can't be had.
    """
    parsers = _parsers()
    networks = []
    for name in parsers if names is None else names:
        if name not in parsers:
            hint = near(name, list(parsers)) or list(parsers)
            raise InputError(f"no yeast network named {name!r}; the nearest are: {', '.join(hint)}")
        sources, parse = parsers[name]
        networks.append(cached_record(Network, f"network-{name}", sources, {"recipe": RECIPE, "network": name}, parse))
    return networks


@configurable
def yeast_cell_networks(
    names: Sequence[str] | None = None, metabolism: bool = True, ontology: bool = False, phenome: bool = False
) -> list[Network]:
    """The gene networks of yeast, and around them its metabolism and its Gene Ontology terms.

    Args:
        names: Gene networks, see ``yeast_networks``.
        metabolism: Add reactions and metabolites, see ``torchcell.screen.yeast_cell``.
        ontology: Add terms, see ``torchcell.screen.yeast_cell``.
        phenome: Add genes with like phenotypes, see ``yeast_phenome``.
    """
    networks = yeast_networks(names)
    networks += [yeast_phenome()] if phenome else []
    networks += yeast_metabolism() if metabolism else []
    return networks + (yeast_gene_ontology() if ontology else [])


@configurable
def yeast_genes() -> list[str]:
    """The ordered gene vocabulary of yeast: every gene that a real table here can name.

    The union of the STRING gene list, the ORFs of the UniProt table, every gene with an edge in one of the seven
    networks and the ORFs of the Costanzo screen: 45 of these, most of them ORFs that were merged or withdrawn since,
    stand in none of the lists, and a screen must not lose a gene to a newer annotation.
    """
    from torchcell.screen.sources import costanzo2010

    genes = set(_string_genes().tolist()) | {orf for _, orf in yeast_symbols()}
    for network in yeast_networks():
        genes.update(network.source.tolist(), network.target.tolist())
    return sorted(genes.union(costanzo2010().genes.tolist()))


@configurable
def read_network(path: str | Path, name: str, directed: bool = False) -> Network:
    """Read a user's edge list with the columns ``source``, ``target`` and, optionally, ``weight``.

    Args:
        path: A table, see ``tables.read_table``; the columns may stand in any order.
        name: The relation's name.
        directed: Whether an edge runs from source to target only.

    Raises:
        InputError: No such file, a missing column, a row without both genes, a date for a gene, a weight that is no
            finite number, or no weight but 0.
    """
    from torchcell.io.tables import (
        read_table,
        require_columns,
        required_numbers,
        single_precision,
        spoiled_names,
        text_cells,
    )

    table = read_table(path)
    require_columns(path, table, ("source", "target"))
    source, target = (np.array(text_cells(table, end), dtype=str) for end in ("source", "target"))
    empty = np.flatnonzero((source == "") | (target == ""))
    problems = [f"rows without both genes: {some(empty + 2)} (the header is row 1)"] if len(empty) else []
    for column, names in (("source", source), ("target", target)):
        problems += [said] if (said := spoiled_names(column, names.tolist())) else []
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    weight = required_numbers(table, "weight", path) if "weight" in table else np.ones(len(table))
    if not weight.any():
        raise InputError(f"{path}: column 'weight' holds nothing but 0; give numbers, or leave the column out")
    weight = single_precision(path, weight[:, None], ["weight"])[:, 0]
    return Network(name=name, source=source, target=target, weight=weight, directed=directed).validate()


def _parsers() -> dict[str, tuple[list[str], Callable[[], Network]]]:
    """Network name -> its sources and its parser."""
    string = {channel: (["string_yeast"], partial(_string, channel)) for channel in STRING_CHANNELS}
    return {
        **string,
        "physical": (["biogrid_physical"], _physical),
        "coexpression": (["hu2007_coexpression"], _coexpression),
        "regulatory": (["yeastract_regulatory", "yeast_gene_names"], _regulatory),
    }


def _string_genes() -> np.ndarray:
    text = fetch("string_yeast")["yeast_string_genes.txt"].read_text(encoding="utf-8")
    return np.array(text.split(), dtype=str)


def _string(channel: str) -> Network:
    """A STRING channel: 1-based positions in the gene list, each edge in both directions."""
    genes = _string_genes()
    edges = np.loadtxt(fetch("string_yeast")[f"yeast_string_{channel}_adjacency.txt"])
    position = edges[:, :2].astype(np.int64) - 1
    once = position[:, 0] <= position[:, 1]
    return Network(
        name=channel,
        source=genes[position[once, 0]],
        target=genes[position[once, 1]],
        weight=edges[once, 2].astype(np.float32),
        directed=False,
        genes=genes,
        dropped={"rows that repeat an edge in the other direction": int((~once).sum())},
    )


def _physical() -> Network:
    """The GML file; the label of a node is ``orf  symbol`` in lower case."""
    text = fetch("biogrid_physical")["ppc_yeast.gml"].read_text(encoding="utf-8")
    nodes = {int(i): label.split()[0].upper() for i, label in re.findall(r'id (\d+)\s+label "([^"]+)"', text)}
    names = sorted({name for name in nodes.values() if not ORF.fullmatch(name)})
    if names:
        raise InputError(f"ppc_yeast.gml: labels that name no ORF: {some(names)}")
    edges = np.array(re.findall(r"source (\d+)\s+target (\d+)", text), dtype=np.int64)
    label = np.vectorize(nodes.__getitem__, otypes=[str])
    return Network(
        name="physical",
        source=label(edges[:, 0]),
        target=label(edges[:, 1]),
        weight=np.ones(len(edges), dtype=np.float32),
        directed=False,
        genes=np.unique(list(nodes.values())),
    )


def _coexpression() -> Network:
    """Three columns without header: ORF, ORF, correlation."""
    table = np.loadtxt(fetch("hu2007_coexpression")["Hu-2007.txt"], dtype=str)
    weight = table[:, 2].astype(np.float32)
    return Network("coexpression", table[:, 0], table[:, 1], weight, directed=False)


def _regulatory() -> Network:
    """A 0/1 matrix, a row per target and a column per transcription factor.

    A few columns and rows carry a symbol: a standard symbol is turned into its ORF (FLO8), any other name is that of
    a gene without ORF (RNA genes, genes of other strains) and stays as it is.
    """
    import pandas as pd

    path = fetch("yeastract_regulatory")["YEASTRACT_20190713_BOTH.tsv"]
    matrix = pd.read_csv(path, sep="\t", index_col=0)
    standard = {symbols[0].upper(): orf for symbols, orf in yeast_symbols()}

    def named(labels: pd.Index) -> np.ndarray:
        return np.array([x if ORF.fullmatch(x) else standard.get(x.upper(), x) for x in labels], dtype=str)

    target, source = np.nonzero(matrix.to_numpy())
    targets, sources = named(matrix.index), named(matrix.columns)
    return Network(
        name="regulatory",
        source=sources[source],
        target=targets[target],
        weight=np.ones(len(source), dtype=np.float32),
        directed=True,
        genes=np.unique(np.concatenate([targets, sources])),
    )
