"""Rows of the profile's table: each representation in each phase, and the usual way beside them."""

from __future__ import annotations

import copy
import gc
import importlib.util
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from torchcell.data.errors import InputError, near, some
from torchcell.datamodules.base import RecordDataModule
from torchcell.run import assemble
from torchcell.run.entry import conf_dir
from torchcell.run.processes import Process
from torchcell.run.profiling import PHASES, Plan, Subject, measure
from torchcell.run.progress import track

NAIVE, AS_IS = "naive", "as_is"
"""The row of the usual way, and the representation that changes nothing in the config."""


def rows(cfg: DictConfig, process: Process) -> list[dict[str, Any]]:
    """Measure what ``cfg.profile`` asks for; every process takes part, and the first one shows a bar.

    Returns:
        A row per representation and phase: ``representation``, ``phase``, ``samples_per_s``, ``ms_per_step``,
        ``busy_ms``, ``bytes_per_batch``, ``peak_mb``, ``tensors_mb``, ``nodes_per_sample``, ``edges_per_sample``,
        ``relative_to_naive``, ``time_to_reference``, ``memory_to_reference``, ``reference``, ``steps``,
        ``batch_size``, ``processes``; None where it is not known.
    """
    configs = representations(cfg)
    plan = Plan(cfg.profile.steps, cfg.profile.warmup, cfg.profile.max_seconds)
    build, table, base = _Builder(), [], {}
    tasks = [(name, phase) for name in configs for phase in PHASES]
    if process.rank == 0:
        tasks = [(NAIVE, "")] * (cfg.profile.naive is not None) + tasks
    for name, phase in track(tasks, "profile, phases") if process.rank == 0 else tasks:
        if name == NAIVE:
            table = naive_rows(cfg, build(next(iter(configs.values()))), process)
            base = {row["phase"]: row["samples_per_s"] for row in table}
            continue
        if phase == PHASES[0]:
            subject = None  # give the last one's memory back first
            gc.collect()
            subject = _subject(name, configs[name], build(configs[name]), process)
            facts = subject.batch_facts()
        assert subject is not None
        measured = measure(subject, phase, plan, process)
        ratio = measured["samples_per_s"] / base[phase] if phase in base else None
        head = {"representation": name, "phase": phase}
        table.append({**head, **measured, **facts, "relative_to_naive": ratio, "processes": process.world})
    return _against_reference(table, cfg.profile.reference)


def _subject(name: str, cfg: DictConfig, data: RecordDataModule, process: Process) -> Subject:
    """What a row measures; what these data can't give is told with the row's name."""
    try:
        return Subject(cfg, data, process, cfg.profile.batch_size)
    except InputError as error:
        raise InputError(f"row {name}: {error}; or leave the row out: profile.representations.{name}=null") from error


def _against_reference(table: list[dict[str, Any]], reference: str | None) -> list[dict[str, Any]]:
    """The rows with time and tensors' memory of the same phase over those of ``reference``, if that was measured."""
    base = {row["phase"]: row for row in table if row["representation"] == reference}
    for row in table:
        row["reference"] = reference if base else None
        for name, column in (("time_to_reference", "busy_ms"), ("memory_to_reference", "tensors_mb")):
            known = base.get(row["phase"], {}).get(column)
            row[name] = row[column] / known if known else None
    return table


def representations(cfg: DictConfig) -> dict[str, DictConfig]:
    """The config of each representation that ``cfg.profile`` asks for.

    Raises:
        InputError: ``only`` or ``reference`` names an unknown one, one sets a key that the config does not have, two
            are the same.
    """
    table = {str(name): changes for name, changes in cfg.profile.representations.items() if changes is not None}
    chosen = list((table or [AS_IS]) if cfg.profile.only is None else cfg.profile.only)
    reference = [] if cfg.profile.reference is None else [cfg.profile.reference]
    table[AS_IS] = table.get(AS_IS, {})
    for key, names in (("only", chosen), ("reference", reference)):
        unknown = [name for name in names if name not in table]
        if unknown or not chosen:
            hint = near(unknown[0], list(table)) if unknown else []
            raise InputError(f"profile.{key} names {some(unknown) or 'nothing'}; the nearest are {hint or list(table)}")
    configs = {name: _changed(cfg, name, table[name]) for name in chosen}
    for name, other in itertools.combinations(configs, 2):
        if configs[name] == configs[other]:
            raise InputError(
                f"{name} and {other} come out as the same config: start from an experiment that neither of them is, "
                "or choose one with profile.only"
            )
    return configs


def _changed(cfg: DictConfig, name: str, changes: Mapping[str, Any]) -> DictConfig:
    """A copy of the config with dotted keys set; all of them must be there, and stay a list or no list."""
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        advice = f"leave the row out (profile.representations.{name}=null), or choose rows with profile.only=[{AS_IS}]"
        if not isinstance(node, DictConfig) or leaf not in node:
            siblings = [f"{parent}.{other!s}" for other in node] if isinstance(node, DictConfig) else list(cfg)
            raise InputError(
                f"profile.representations.{name} sets {key!r}, which this config does not have; the nearest are "
                f"{near(key, siblings) or siblings}; {advice}"
            )
        before = node[leaf]
        if None not in (before, value) and OmegaConf.is_list(before) != OmegaConf.is_list(value):
            raise InputError(
                f"profile.representations.{name} sets {key}={value}, but here it is {before}: the row is meant for "
                f"another model than {str(cfg.model._target_).rpartition('.')[2]}; {advice}"
            )
        OmegaConf.update(cfg, key, value, merge=False)
    return cfg


class _Builder:
    """Datamodules whose record and graph are loaded once, as long as their configs are equal."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def __call__(self, cfg: DictConfig) -> RecordDataModule:
        if cfg.data.get("record") is None:
            return assemble.datamodule(cfg)
        plain = OmegaConf.to_container(cfg.data, resolve=True)
        assert isinstance(plain, dict)
        split = OmegaConf.to_container(cfg.split, resolve=True)
        graph, record = self._once(cfg.graph) or None, self._once(cfg.data.record)
        if graph is not None:
            graph.cpu()  # the last model may have taken it to its device
        for key in ("record", *assemble.NOT_DATA):
            plain.pop(key, None)
        return instantiate(plain, _partial_=True)(record=record, graph=graph, split=split, seed=cfg.seed)

    def _once(self, node: Any) -> Any:
        text = OmegaConf.to_yaml(node, resolve=True) if OmegaConf.is_config(node) else ""
        if text not in self._known:
            self._known[text] = instantiate(node)
        return self._known[text]


def naive_rows(cfg: DictConfig, data: RecordDataModule, process: Process) -> list[dict[str, Any]]:
    """The usual way on the same graph and sets, measured in one process by the file ``cfg.profile.naive``.

    Where it cannot be measured a sentence says why, and there are no rows.
    """
    path = conf_dir().parent / cfg.profile.naive
    dim, layers = (OmegaConf.select(cfg, f"model.{key}") for key in ("dim", "layers"))
    missing = [
        (not path.is_file(), f"there is no file {path}"),
        (data.graph is None, "the data has no graph"),
        (dim is None or layers is None, "the model has no keys dim and layers"),
    ]
    why = next((said for is_so, said in missing if is_so), None)
    if why is not None:
        Console().print(f"the usual way is left out: {why}", soft_wrap=True, highlight=False)
        return []
    graph = data.graph
    assert graph is not None
    batch = data.packed[torch.from_numpy(data.split.index("train")[:256])]
    sets = [batch.gene[first:last] for first, last in zip(batch.ptr[:-1], batch.ptr[1:], strict=True)]
    found = _measure_of(path)(graph, sets, dim, layers, float(cfg.profile.max_seconds), process.device)
    edges = sum(len(graph.csr(relation).indices) for relation in graph.relations)
    return [
        {
            "representation": NAIVE,
            "phase": phase,
            "samples_per_s": found[phase],
            "ms_per_step": 1e3 * found["batch_size"] / found[phase],
            "bytes_per_batch": found["bytes_per_batch"],
            "peak_mb": found[f"{phase}: peak_mb"],
            "busy_ms": None,
            "tensors_mb": None,
            "nodes_per_sample": graph.n_nodes,
            "edges_per_sample": edges,
            "relative_to_naive": 1.0,
            "steps": int(found[f"{phase}: steps"]),
            "batch_size": int(found["batch_size"]),
            "processes": 1,
        }
        for phase in PHASES
    ]


def _measure_of(path: Path) -> Callable[..., dict[str, float]]:
    """The function ``measure`` of a file outside the package, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module.measure
