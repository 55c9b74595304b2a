"""The Gaussian process equals the sums it stands for, and finds what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from torchcell.drug_response.gaussian_process import OF_CONTROL, PARTS, GaussianProcessRegression, Wells


def wells(n: int, drugs: int = 10, lines: int = 2, seed: int = 0) -> Wells:
    draw = torch.Generator().manual_seed(seed)
    treatment = torch.stack([torch.randint(-1, 3, (n,), generator=draw) / 2, torch.full((n,), 4.6)], 1)
    drug, line = torch.randint(drugs, (n,), generator=draw), torch.randint(lines, (n,), generator=draw)
    return Wells(drug, line, treatment, torch.randn(n, 5, generator=draw))


def vectors(drugs: int = 10, features: int = 8, seed: int = 1) -> torch.Tensor:
    return (torch.rand(drugs, features, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def naive_kernel(
    regression: GaussianProcessRegression, a: Wells, b: Wells, names: tuple[str, ...] = PARTS[:-1]
) -> np.ndarray:
    """Pair by pair."""
    found = np.zeros((len(a), len(b)))
    x, known = regression.vector_DF.numpy(), regression.known_D.numpy()
    spread = regression.control_NG.square().mean().item()
    for i in range(len(a)):
        for j in range(len(b)):
            p, q = int(a.drug[i]), int(b.drug[j])
            both = (x[p] * x[q]).sum()
            either = (x[p] ** 2).sum() + (x[q] ** 2).sum() - both
            like = 1.0 if p == q else both / either if known[p] and known[q] and either else 0.0
            off = ((a.treatment[i] - b.treatment[j]) ** 2).sum()
            apart = ((a.control[i] - b.control[j]) ** 2).mean() / spread
            of = {"drug": p == q, "like": like, "line": a.line[i] == b.line[j], "dose": np.exp(-float(off) / 2)}
            of["control"] = np.exp(-float(apart) / 2)
            for name, weight in zip(PARTS[:-1], regression.weight_P.tolist(), strict=False):
                found[i, j] += weight * np.prod([float(of[each]) for each in name.split()]) * (name in names)
    return found


def test_it_is_the_sum_over_training_samples_and_of_nothing_before_it_is_fitted():
    known = torch.tensor([True] * 8 + [False] * 2)
    regression = GaussianProcessRegression(vectors(), known, wells(30))
    asked = wells(7, seed=3)
    assert all((told == 0).all() for told in regression(asked))
    value = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    regression.fit(value)
    k, noise = naive_kernel(regression, regression.trained, regression.trained), float(regression.weight_P[-1]) + 1e-6
    dual = np.linalg.solve(k + noise * np.eye(30), value.numpy())
    of_treatment = tuple(name for name in PARTS[:-1] if name not in OF_CONTROL)
    for told, names in zip(regression(asked), (of_treatment, OF_CONTROL), strict=True):
        expected = naive_kernel(regression, asked, regression.trained, names) @ dual
        np.testing.assert_allclose(told.numpy(), expected, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = regression(asked)
    assert all(torch.equal(one, other) for one, other in zip(half, regression(asked), strict=True))


def test_it_finds_how_much_is_the_drugs_and_how_much_is_noise():
    trained, draw = wells(400, drugs=60), torch.Generator().manual_seed(5)
    trained = replace(trained, control=torch.randn(400, 50, generator=draw))
    effect = torch.randn(60, 50, generator=draw)
    value = effect[trained.drug] + 0.7 * torch.randn(400, 50, generator=draw)
    regression = GaussianProcessRegression(torch.zeros(60, 4), torch.ones(60, dtype=torch.bool), trained)
    regression.fit(value)
    weight = dict(zip(PARTS, regression.weight_P.tolist(), strict=True))
    of_drug = weight["drug"] + weight["like"]  # molecules without a bit are like themselves alone
    assert of_drug == pytest.approx(1 / 1.49, abs=0.1)
    assert weight["noise"] == pytest.approx(0.49 / 1.49, abs=0.05)
    assert sum(weight.values()) - of_drug - weight["noise"] < 0.05
    asked = Wells(torch.arange(60), torch.zeros(60, dtype=torch.int64), trained.treatment[:60], trained.control[:60])
    told, _ = regression(asked)
    held = torch.isin(torch.arange(60), trained.drug)
    assert torch.corrcoef(torch.stack([told[held].flatten(), effect[held].flatten()]))[0, 1] > 0.95


def test_it_takes_a_controls_noise_out_and_leaves_a_control_alone_that_is_like_none():
    """A change from a noisy control holds that noise with its sign turned; a strange plate's offset is no noise."""
    draw = torch.Generator().manual_seed(6)
    noise = torch.randn(40, 50, generator=draw)[torch.arange(200) % 40]  # 40 controls of five wells each
    trained = replace(wells(200), control=noise)
    regression = GaussianProcessRegression(vectors(), torch.ones(10, dtype=torch.bool), trained)
    regression.fit(0.5 * torch.randn(200, 50, generator=draw) - noise)
    _, told = regression(trained)
    assert torch.corrcoef(torch.stack([told.flatten(), -noise.flatten()]))[0, 1] > 0.9
    strange = replace(trained, control=noise + 6 * torch.randn(50, generator=draw))
    assert regression(strange)[1].abs().max() < 1e-3 * told.abs().max()
    elsewhere = replace(trained, line=torch.full((200,), -1))
    assert (regression(elsewhere)[1] == 0).all()


def test_values_without_spread_and_unknown_lines_do_no_harm():
    value = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    value[:, 2] = 0
    for control in (wells(30).control, torch.zeros(30, 5)):  # signatures have no controls to depart
        regression = GaussianProcessRegression(
            vectors(), torch.zeros(10, dtype=torch.bool), replace(wells(30), control=control)
        )
        regression.fit(value)
        for told in regression(replace(wells(4), line=torch.full((4,), -1))):
            assert torch.isfinite(told).all()
            assert (told[:, 2] == 0).all()
