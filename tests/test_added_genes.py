"""Genes that a trained transformer never saw, and other organisms: features say what a gene is, no weight changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_specs import screen_spec

from tests.screen.small_transformers import make_batch
from torchcell.core.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.predict import predict
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.models.cell_graph_transformer.options import EmbeddingOptions, EncoderOptions
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
COLUMNS = ("x", "y", "z")
CONTROLS = "torchcell.screen.models.cell_graph_transformer.controls"
SMALL = {"encoder.dim": 32, "encoder.heads": 2, "encoder.layers": 1, "embedding.imputation.neighbors": 0}
FEATURES_ONLY = {"embedding.free": False}
ALL = {"embedding.imputation.neighbors": 5, "readout.pairs.width": 4, "readout.pooling": "hyper_sagnn"}
RANDOM = {"graph_loss._target_": f"{CONTROLS}.RandomNetworks"}
MASKED = {"_target_": f"{CONTROLS}.HardMaskTransformer", **RANDOM}


@pytest.fixture
def save(pairs, ring, tmp_path):
    """Write the checkpoint of a transformer on ``pairs``, by default with features."""

    def write(columns: tuple[str, ...] = COLUMNS, **choices) -> Path:
        graph = CellGraph.from_networks(ring)
        table = np.random.default_rng(0).normal(size=(len(graph), len(columns))).astype(np.float32)
        features = GeneFeatures(graph.genes, columns, table) if columns else None
        spec = PerturbationDataModule(pairs, SPLIT, graph, features=features).spec
        model = OmegaConf.load(conf_dir() / "model" / "cell_graph_transformer.yaml")
        for key, value in {**SMALL, **choices}.items():
            OmegaConf.update(model, key, value)
        data = {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"}
        config = OmegaConf.create({"model": model, "data": data})
        torch.manual_seed(0)
        state = instantiate(config.model, _partial_=True)(spec=spec).state_dict()
        about = {checkpoint.KEY: checkpoint.describe(spec, config)}
        torch.save({"state_dict": state, "epoch": 0, **about}, tmp_path / "best.ckpt")
        return tmp_path / "best.ckpt"

    return write


def ask(ckpt: Path, sets: list[str], *overrides: str, kinds: list[str] | None = None) -> pd.DataFrame:
    """Predict as ``python -m torchcell.predict`` does."""
    table = pd.DataFrame({"genes": sets} | ({} if kinds is None else {"kinds": kinds}))
    table.to_csv(ckpt.parent / "pairs.csv", index=False)
    given = {"ckpt": ckpt, "perturbations": ckpt.parent / "pairs.csv", "out": ckpt.parent / "predicted.parquet"}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("predict", [*(f"{key}='{value}'" for key, value in given.items()), *overrides])
    predict(cfg)
    return pd.read_parquet(ckpt.parent / "predicted.parquet")


def added(ckpt: Path, rows: dict[str, np.ndarray | list[float]]) -> str:
    """A file of added genes; its columns stand in another order than those of training."""
    table = pd.DataFrame([{"z": z, "gene": name, "y": y, "x": x} for name, (x, y, z) in rows.items()])
    table.to_csv(ckpt.parent / "new.csv", index=False)
    return f"added_genes='{ckpt.parent / 'new.csv'}'"


def features_of(ckpt: Path, gene: str) -> np.ndarray:
    known = checkpoint.load(ckpt).spec.gene_features
    return known.aligned([gene])[0]


@pytest.mark.parametrize("choices", [{}, FEATURES_ONLY, ALL, MASKED], ids=str)
def test_sets_may_name_added_genes_and_known_sets_keep_nearly_their_prediction(save, choices):
    ckpt = save(**choices)
    known, more = ["A01|A02", "Q03|A05", "Q01"], ["N1", "N1|A02", "N2|N1|Q03"]
    before = ask(ckpt, known).set_index("genes")["y"]
    file = added(ckpt, {"N1": [0.5, -1.0, 0.2], "N2": [-0.5, 2.0, 1.0]})
    after = ask(ckpt, [more[0], *known, *more[1:]], file).set_index("genes")["y"]
    assert after.index.tolist() == [more[0], *known, *more[1:]]
    assert np.isfinite(after).all()
    assert after[more].nunique() == 3
    # Two more tokens among 80 shift what each gene attends to by a little.
    np.testing.assert_allclose(after[known], before, atol=0.2 * float(checkpoint.load(ckpt).spec.scale))
    with pytest.raises(InputError, match="'N1', 'N2'"):
        ask(ckpt, more)


def test_to_a_model_of_features_alone_an_added_gene_is_its_twin(save):
    """With the features of A05 it is A05, in whatever company; free tokens, unassigned heads and all."""
    ckpt = save(**FEATURES_ONLY)
    file = added(ckpt, {"N1": features_of(ckpt, "A05"), "N2": features_of(ckpt, "Q07")})
    told = ask(ckpt, ["A05", "N1", "A05|Q01", "N1|Q01", "A05|Q07|A09", "N1|N2|A09"], file)["y"].to_numpy()
    np.testing.assert_allclose(told[1::2], told[::2], rtol=1e-4, atol=1e-5)
    assert len(np.unique(told[::2].round(4))) == 3


def test_weights_load_as_they_are_and_nothing_changes_shape(save):
    ckpt = save(**ALL)
    added(ckpt, {"N1": [0.5, -1.0, 0.2]})
    saved = checkpoint.load(ckpt)
    spec = saved.spec_with(ckpt.parent / "new.csv")
    own, more = saved.model(), saved.model(spec=spec)
    assert len(more.gene_embeddings()["tokens"]) == len(own.gene_embeddings()["tokens"]) + 1
    for (name, before), (same, after) in zip(own.state_dict().items(), more.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(before.nan_to_num(), after.nan_to_num()), name


def test_the_genes_looked_at_are_ranked_and_may_be_added_ones(save):
    ckpt = save()
    out = ckpt.parent / "looked.csv"
    file = added(ckpt, {"N1": [0.5, -1.0, 0.2]})
    ask(ckpt, ["N1", "A01|A02", "Q03|N1|A04"], file, f"attention_out='{out}'", "top_genes=6")
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["sample_id", "genes", "rank", "gene", "weight"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 3
    for genes, rows in table.groupby("genes"):
        assert rows["weight"].is_monotonic_decreasing
        assert 0 < rows["weight"].sum() <= 1
        assert "|" in genes or rows["gene"].iloc[0] == genes, "a fresh head looks at a gene that is alone"
    ask(ckpt, ["N1", "A01|A02"], file, f"attention_out='{out}'", "top_genes=500")
    whole = pd.read_csv(out).groupby("genes")
    np.testing.assert_allclose(whole["weight"].sum(), 1, atol=1e-5)
    assert (whole["gene"].nunique() == len(checkpoint.load(ckpt).spec.genes) + 1).all()


def extended(spec: Spec) -> Spec:
    features = GeneFeatures(np.array(["N1", "N2"]), COLUMNS, np.array([[9, -9, 9], [0, 1, 2]], dtype=np.float32))
    return spec.with_added(features)


def test_added_genes_never_enter_the_graph_term(save):
    """The same queries and keys give the same bits, and no gradient goes to what was added."""
    spec = checkpoint.load(save()).spec
    torch.manual_seed(0)
    q_TD, k_TD = (torch.randn(len(spec.genes) + 3, 16, requires_grad=True) for _ in range(2))
    for relation in ("ring", "star"):
        for loss in ("kl", "bce"):
            own = GraphLoss(spec.graph, relation, loss).eval()
            more = GraphLoss(extended(spec).graph, relation, loss).eval()
            value = more(q_TD, k_TD)
            assert torch.equal(value, own(q_TD[:-2], k_TD[:-2]))
            assert torch.equal(more.edge_recall(q_TD, k_TD), own.edge_recall(q_TD[:-2], k_TD[:-2]))
            for gradient in torch.autograd.grad(value, (q_TD, k_TD)):
                assert torch.equal(gradient[-2:], torch.zeros(2, 16))
                assert gradient[1:-2].abs().sum() > 0


@pytest.mark.parametrize("choices", [{}, RANDOM, {"graph_loss.form": "bce"}], ids=str)
def test_the_models_own_terms_do_not_see_added_genes_either(save, choices):
    """In the first layer queries and keys are each gene's own; the random networks must be the same ones."""
    saved = checkpoint.load(save(**choices))
    with torch.no_grad():
        own, more = (
            saved.model(spec=spec).diagnostics(make_batch([(0, 1)])) for spec in (saved.spec, extended(saved.spec))
        )
    assert list(own) == list(more)
    for name, value in own.items():
        torch.testing.assert_close(more[name], value, rtol=1e-6, atol=1e-6)
    assert any(value > 0 for value in own.values())


def test_an_added_gene_sees_itself_and_cls_alone_under_a_hard_mask(save):
    """Known genes keep their random neighborhoods: nothing that is added reaches them through a confined head."""
    saved = checkpoint.load(save(**MASKED))
    own, more = (saved.model(spec=spec).encoder.layers[0].masks for spec in (saved.spec, extended(saved.spec)))
    for head in own:
        for row in range(1, len(saved.spec.genes) + 1):
            a, b = (mask.indices[mask.indptr[row] : mask.indptr[row + 1]] for mask in (own[head], more[head]))
            assert torch.equal(a, b)
        last = more[head].n_tokens - 1
        assert more[head].indices[more[head].indptr[last] :].tolist() == [0, last]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gene,x,y,z\nN1,1,,2\n", "new.csv.*without a finite number.*'N1'.*'y'"),
        ("gene\nN1\n", "new.csv.*no column of features"),
        ("gene,x,y\nN1,1,2\n", "wrong width: 2 columns where 3 are read; missing 'z'"),
        ("gene,x,y,z,w\nN1,1,2,3,4\n", "wrong width: 4 columns where 3.*too many 'w'"),
        ("gene,x,y,z\nA05,1,2,3\n", "already knows: 'A05'"),
        ("gene,x,y,z\nN1,1,2,3\nN1,1,2,3\n", "name genes twice: 'N1'"),
    ],
)
def test_added_genes_that_do_not_fit_are_refused_by_name(save, text, said):
    ckpt = save()
    (ckpt.parent / "new.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        ask(ckpt, ["N1"], f"added_genes='{ckpt.parent / 'new.csv'}'")
    assert not (ckpt.parent / "predicted.parquet").exists()


def test_a_model_without_features_and_a_kind_it_does_not_know_are_refused(save):
    ckpt = save()
    file = added(ckpt, {"N1": [0.5, -1.0, 0.2]})
    with pytest.raises(InputError, match="not in training: 'added'; the model knows 'absent'"):
        ask(ckpt, ["N1", "A01"], file, kinds=["added", "absent"])
    with pytest.raises(InputError, match="uses no gene features, so it can predict nothing for an added gene"):
        ask(save(columns=()), ["N1"], file)


# Other organisms -------------------------------------------------------------------------------------

GROUPS = 8


def organism(n: int, seed: int) -> tuple[CellGraphTransformer, object]:
    """A cell whose genes belong to eight groups that are the same in all organisms: features tell which, a network joins
    the groups' genes, and two genes interact as their groups do."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, n)
    values = torch.from_numpy(np.eye(GROUPS)[group] + 0.1 * rng.normal(size=(n, GROUPS))).float()
    planted = np.random.default_rng(0).normal(size=(GROUPS, GROUPS))
    pairs = rng.permutation(np.stack(np.triu_indices(n, 1), 1))[:300]
    y = (planted + planted.T)[group[pairs[:, 0]], group[pairs[:, 1]]]
    joined = (group[:, None] == group) & (rng.random((n, n)) < 0.5)
    genes = tuple(f"{'YZ'[seed % 2]}{i}" for i in range(n))
    network = np.maximum(joined, joined.T) & ~np.eye(n, dtype=bool)
    graph = CellGraph(genes, {"physical": network.astype(np.float32)})
    features = GeneFeatures(np.array(genes), tuple(f"group {i}" for i in range(GROUPS)), values.numpy())
    scaler = torch.tensor([float(y.mean())]), torch.tensor([float(y.std())])
    spec = screen_spec("regression", ("y",), genes, ("absent",), *scaler, graph, gene_features=features)
    torch.manual_seed(0)
    encoder = EncoderOptions(dim=32, heads=2, layers=1, dropout=0.0)
    model = CellGraphTransformer(spec, encoder=encoder, embedding=EmbeddingOptions(free=False))
    return model, make_batch(pairs.tolist(), target=torch.from_numpy(y).float()[:, None])


def correlation(model: CellGraphTransformer, batch) -> float:
    with torch.no_grad():
        predicted = model.eval()(batch)
    model.train()
    return float(np.corrcoef(predicted[:, 0], batch.target[:, 0])[0, 1])


def step(model: CellGraphTransformer, batch, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    torch.stack(list(model.losses(batch, model(batch)).values())).sum().backward()
    optimizer.step()


def test_one_set_of_weights_learns_two_organisms_of_different_size_and_predicts_a_third():
    first, second, third = organism(30, 1), organism(47, 2), organism(38, 3)
    for module_name, module in second[0].named_modules():
        module._parameters.update(first[0].get_submodule(module_name)._parameters)  # one set of weights from here on
    optimizer = torch.optim.AdamW(first[0].parameters(), lr=5e-3)
    before = [correlation(*each) for each in (first, second)]
    for _ in range(60):
        for each in (first, second):
            step(*each, optimizer)
    after = [correlation(*each) for each in (first, second)]
    assert max(before) < 0.5
    assert min(after) > 0.9
    third[0].load_state_dict(first[0].state_dict())
    assert correlation(*third) > 0.8, "never trained on, known by its features"
