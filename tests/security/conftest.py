"""One tiny run that all attacks are made of, and the verbs that a user would call on what a stranger sent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from torchcell.embed import embed
from torchcell.evaluate import evaluate
from torchcell.predict import predict
from torchcell.train import train
from torchcell.training.entry import conf_dir

TINY = (
    "data.record.n_genes=120", "data.record.n_sets=300", "data.record.n_queries=16", "data.record.n_arrays=60",
    "model.encoder.dim=16", "model.readout.heads=1", "trainer.max_epochs=1", "trainer.warmup_steps=2", "evaluation.n_boot=10",
    "baselines=none", "+baselines.mean._target_=torchcell.screen.baselines.Mean",
)  # fmt: skip

Verb = Callable[..., Any]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("runs")
    return train(composed("config", *TINY, f"paths.runs={folder}")).folder.path


@pytest.fixture
def verbs(finished: Path, tmp_path: Path) -> dict[str, Verb]:
    """What is called on a checkpoint, by name."""
    request, best = tmp_path / "request.csv", finished / "checkpoints" / "best.ckpt"
    request.write_text("genes\nG0000|G0001\n".replace("G0000|G0001", "|".join(genes_of(finished)[:2])))
    out = tmp_path / "out"
    out.mkdir()
    given = {
        "predict": (predict, "predict", [f"perturbations={request}", f"out={out}/predicted.csv"]),
        "predict system": (predict, "predict", [f"perturbations={request}", f"out={out}/mean.csv", "system=mean"]),
        "embed": (embed, "embed", [f"out={out}/embedded.h5ad", "umap=false"]),
        "evaluate": (evaluate, "evaluate", [f"out={out}/scored"]),
    }

    def calling(verb: str) -> Verb:
        function, name, overrides = given[verb]
        return lambda ckpt, *more: function(composed(name, f"ckpt='{ckpt}'", *overrides, *more))

    def comparing(ckpt: Path, *more: str) -> Any:
        return evaluate(composed("evaluate", f"ckpt='{best}'", f"out={out}/both", f"comparators=['{ckpt}']", *more))

    return {**{verb: calling(verb) for verb in given}, "comparators": comparing}


def genes_of(run: Path) -> list[str]:
    from torchcell.training import checkpoint

    return list(checkpoint.load(run / "checkpoints" / "best.ckpt").spec.genes)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of a server that sends three bytes."""

    class Foo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"foo")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}/foo"
    server.shutdown()
