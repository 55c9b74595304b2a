"""``Network``: edges by name; ``GeneRules``: which genes a reaction needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchcell.io.errors import InputError, some

MOST_CONJUNCTS = 2_000
"""A rule with more conjuncts is an error, since it would take too long."""

TOKEN = re.compile(r"\s*([()]|[^\s()]+)")

Sufficient = frozenset[frozenset[str]]
"""Sets of genes; each of them is sufficient alone."""


@dataclass(frozen=True, eq=False)
class GeneRules:
    """The rules of many nodes in disjunctive normal form: a node is kept while one of its conjuncts is complete.

    Attributes:
        kind: Type of the nodes, e.g. ``reaction``.
        target: Names of the nodes that have a rule [n].
        owner: Position of the node of each conjunct in ``target``, int64 [c].
        ptr: Conjunct i needs all of ``gene[ptr[i]:ptr[i + 1]]``, int64 [c + 1].
        gene: Gene names.
    """

    kind: str
    target: np.ndarray
    owner: np.ndarray
    ptr: np.ndarray
    gene: np.ndarray

    @classmethod
    def parse(cls, kind: str, rules: Mapping[str, str]) -> GeneRules:
        """Parse rules by the name of their node; a node with an empty rule needs no gene and is left out.

        Raises:
            InputError: A rule that does not parse, with its node, the position and what was expected there.
        """
        targets: list[str] = []
        owner: list[int] = []
        sizes: list[int] = []
        genes: list[str] = []
        for name, rule in rules.items():
            if not rule.strip():
                continue
            for conjunct in parse_rule(rule, f"{kind} {name}"):
                owner.append(len(targets))
                sizes.append(len(conjunct))
                genes += sorted(conjunct)
            targets.append(name)
        ptr = np.cumsum([0, *sizes]).astype(np.int64)
        return cls(kind, np.array(targets, dtype=str), np.array(owner, dtype=np.int64), ptr, np.array(genes, dtype=str))

    def validate(self) -> GeneRules:
        """Return self, or raise one ``InputError`` where no node has a rule or the arrays don't fit together."""
        if not len(self.target) or len(self.ptr) != len(self.owner) + 1 or self.ptr[-1] != len(self.gene):
            raise InputError(f"the gene rules of {self.kind}s are empty, or owner, ptr and gene don't fit together")
        return self

    def to_plain(self) -> dict[str, Any]:
        """Strings, numbers and lists."""
        arrays = {name: getattr(self, name).tolist() for name in ("target", "owner", "ptr", "gene")}
        return {"kind": self.kind, **arrays}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> GeneRules:
        """The inverse of ``to_plain``."""
        text = {name: np.array(plain[name], dtype=str) for name in ("target", "gene")}
        numbers = {name: np.array(plain[name], dtype=np.int64) for name in ("owner", "ptr")}
        return cls(kind=plain["kind"], **text, **numbers)


def parse_rule(rule: str, owner: str = "the rule") -> list[frozenset[str]]:
    """The smallest sets of genes that satisfy a rule of ``and``, ``or`` and parentheses, sorted.

    Args:
        rule: E.g. ``(YDL174C and YEL039C) or YEL071W``; ``and`` binds more tightly than ``or``.
        owner: Name of the rule's node in errors.
    """
    tokens = [(match.group(1), match.start(1)) for match in TOKEN.finditer(rule)]
    sets, rest = _either(tokens, rule, owner)
    if rest:
        raise _error(rule, owner, rest, "'and', 'or' or the end")
    return sorted(sets, key=sorted)


def rule_genes(rule: str) -> list[str]:
    """All genes that a rule names, sorted, also those of the redundant sets that ``parse_rule`` leaves out."""
    tokens = {match.group(1) for match in TOKEN.finditer(rule)}
    return sorted(token for token in tokens if token.lower() not in ("(", ")", "and", "or"))


Tokens = list[tuple[str, int]]


def _either(tokens: Tokens, rule: str, owner: str) -> tuple[Sufficient, Tokens]:
    sets, rest = _both(tokens, rule, owner)
    while rest and rest[0][0].lower() == "or":
        more, rest = _both(rest[1:], rule, owner)
        sets = _smallest(sets | more, owner)
    return sets, rest


def _both(tokens: Tokens, rule: str, owner: str) -> tuple[Sufficient, Tokens]:
    sets, rest = _one(tokens, rule, owner)
    while rest and rest[0][0].lower() == "and":
        more, rest = _one(rest[1:], rule, owner)
        if len(sets) * len(more) > MOST_CONJUNCTS:
            raise _too_many(owner)
        sets = _smallest(frozenset(a | b for a in sets for b in more), owner)
    return sets, rest


def _one(tokens: Tokens, rule: str, owner: str) -> tuple[Sufficient, Tokens]:
    if not tokens or tokens[0][0].lower() in ("and", "or", ")"):
        raise _error(rule, owner, tokens, "a gene or '('")
    (token, _), rest = tokens[0], tokens[1:]
    if token != "(":
        return frozenset([frozenset([token])]), rest
    sets, rest = _either(rest, rule, owner)
    if not rest or rest[0][0] != ")":
        raise _error(rule, owner, rest, "')'")
    return sets, rest[1:]


def _smallest(sets: Sufficient, owner: str) -> Sufficient:
    """The sets that contain no other set."""
    smallest: list[frozenset[str]] = []
    for genes in sorted(sets, key=len):
        if not any(smaller <= genes for smaller in smallest):
            smallest.append(genes)
        if len(smallest) > MOST_CONJUNCTS:
            raise _too_many(owner)
    return frozenset(smallest)


def _error(rule: str, owner: str, rest: Tokens, expected: str) -> InputError:
    place = f"at character {rest[0][1] + 1}, before {rest[0][0]!r}" if rest else "at its end"
    return InputError(f"the gene rule of {owner} does not parse {place}: expected {expected}; it reads {rule!r}")


def _too_many(owner: str) -> InputError:
    return InputError(f"the gene rule of {owner} multiplies out to over {MOST_CONJUNCTS:,} sets of genes; shorten it")


@dataclass(frozen=True, eq=False)
class Network:
    """An edge list by name; sources and targets are genes by default.

    Attributes:
        name: The relation, e.g. ``physical``.
        source: Names [E].
        target: Names [E].
        weight: Confidence or 1, float32 [E].
        directed: Whether an edge goes from source to target only. Edges of an undirected network may be listed in
            either or both directions; the graph makes them symmetric.
        genes: All genes of the data source, with or without edges; empty: those with edges.
        dropped: Counts of what parsing left out.
        source_type: Node type of the sources: ``gene``, ``reaction``, ...
        target_type: Node type of the targets.
    """

    name: str
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    directed: bool
    genes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    dropped: Mapping[str, int] = field(default_factory=dict)
    source_type: str = "gene"
    target_type: str = "gene"

    def validate(self) -> Network:
        """Return self, or raise one ``InputError`` that names the offending edges."""
        if not len(self.source) == len(self.target) == len(self.weight):
            raise InputError(f"network {self.name}: source, target and weight differ in length")
        if not len(self.source):
            raise InputError(f"network {self.name} has no edges; leave it out of the graph or mend its file")
        if not self.directed and self.source_type != self.target_type:
            raise InputError(
                f"network {self.name} joins {self.source_type}s to {self.target_type}s, so its edges have a direction; "
                "set directed=True, and add the reverse as a network of its own"
            )
        bad = ~np.isfinite(self.weight)
        if bad.any():
            edges = [f"{a}-{b}" for a, b in zip(self.source[bad], self.target[bad], strict=True)]
            raise InputError(
                f"network {self.name}: {len(edges)} edge(s) without a finite weight: {some(edges)}; give numbers"
            )
        return self
