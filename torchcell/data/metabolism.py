"""Yeast's metabolism from the genome-scale model yeast-GEM: genes, reactions and metabolites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from torchcell.data.cache import cached_network, cached_rules
from torchcell.data.errors import InputError
from torchcell.data.gene_rule import GeneRules, rule_genes
from torchcell.data.network import Network
from torchcell.data.sources import fetch

RECIPE = 2  # raise it when a parser changes, so that no older cache is read


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
        cached_network(f"metabolism-{name}", ["yeast_gem"], {"recipe": RECIPE, "network": name}, parse)
        for name, parse in parsers.items()
    ]


def yeast_gene_rules() -> GeneRules:
    """Which reactions of yeast-GEM are lost with which genes: its rules of ``and`` and ``or``."""
    return cached_rules(
        "metabolism-rules",
        ["yeast_gem"],
        {"recipe": RECIPE},
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
