"""Every model of drug response under every benchmark of drug response, as the config builds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.drug_response.small_responses import response_spec
from torchcell.core.prior_alone import PriorAlone
from torchcell.core.spec import Spec
from torchcell.drug_response.models.base import ResponseModel
from torchcell.drug_response.molecules import pack_graphs
from torchcell.drug_response.spec import DrugResponseSpec, PackedGraphs
from torchcell.training.checkpoint import built
from torchcell.training.entry import conf_dir
from torchcell.training.model_task import models_of

MODELS = models_of(DrugResponseSpec)
BENCHMARKS = ("simulated_response", "l1000_level3", "l1000_level5")


@pytest.fixture(scope="module")
def spec() -> Spec:
    """Of molecules with vectors and graphs."""
    spec = response_spec()
    graphs = PackedGraphs(**{name: torch.from_numpy(values) for name, values in pack_graphs(["CCO"] * 12).items()})
    return replace(spec, molecules=replace(spec.molecules, graphs=graphs))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_model_of_drug_response_is_a_choice_under_every_benchmark(benchmark: str, spec: Spec) -> None:
    """l1000_chemoe wrote the widths of experts into whatever model was chosen beside it: TypeError."""
    assert {"chemoe", "response_mlp", "latent_shift", "additive_latent", "response_product"} <= set(MODELS)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for name in MODELS:
            cfg = compose("config", [f"benchmark={benchmark}", f"model={name}"])
            model = built(cfg.model, spec)
            assert isinstance(model, ResponseModel | PriorAlone), name
