"""The process equals the sums it stands for, and finds what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.nn.response_process import PARTS, ResponseProcess, Wells


def wells(n: int, drugs: int = 10, lines: int = 2, seed: int = 0) -> Wells:
    draw = torch.Generator().manual_seed(seed)
    treatment = torch.stack([torch.randint(-1, 3, (n,), generator=draw) / 2, torch.full((n,), 4.6)], 1)
    return Wells(torch.randint(drugs, (n,), generator=draw), torch.randint(lines, (n,), generator=draw), treatment)


def vectors(drugs: int = 10, features: int = 8, seed: int = 1) -> torch.Tensor:
    return (torch.rand(drugs, features, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def naive_kernel(process: ResponseProcess, a: Wells, b: Wells) -> np.ndarray:
    """Pair by pair."""
    found = np.zeros((len(a), len(b)))
    x, known = process.vector_DF.numpy(), process.known_D.numpy()
    for i in range(len(a)):
        for j in range(len(b)):
            p, q = int(a.drug[i]), int(b.drug[j])
            both = (x[p] * x[q]).sum()
            either = (x[p] ** 2).sum() + (x[q] ** 2).sum() - both
            like = 1.0 if p == q else both / either if known[p] and known[q] and either else 0.0
            off = ((a.treatment[i] - b.treatment[j]) ** 2).sum()
            of = {"drug": p == q, "like": like, "line": a.line[i] == b.line[j], "dose": np.exp(-float(off) / 2)}
            for name, weight in zip(PARTS[:-1], process.weight_P.tolist(), strict=False):
                found[i, j] += weight * np.prod([float(of[each]) for each in name.split()])
    return found


def test_it_is_the_sum_over_training_samples_and_of_nothing_before_it_is_fitted():
    known = torch.tensor([True] * 8 + [False] * 2)
    process = ResponseProcess(vectors(), known, wells(30), 5)
    asked = wells(7, seed=3)
    assert (process(asked) == 0).all()
    value = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    process.fit(value)
    k, noise = naive_kernel(process, process.trained, process.trained), float(process.weight_P[-1]) + 1e-6
    expected = naive_kernel(process, asked, process.trained) @ np.linalg.solve(k + noise * np.eye(30), value.numpy())
    np.testing.assert_allclose(process(asked).numpy(), expected, rtol=1e-3, atol=1e-4)


def test_it_finds_how_much_is_the_drugs_and_how_much_is_noise():
    trained, draw = wells(400, drugs=60), torch.Generator().manual_seed(5)
    effect = torch.randn(60, 50, generator=draw)
    value = effect[trained.drug] + 0.7 * torch.randn(400, 50, generator=draw)
    process = ResponseProcess(torch.zeros(60, 4), torch.ones(60, dtype=torch.bool), trained, 50)
    process.fit(value)
    weight = dict(zip(PARTS, process.weight_P.tolist(), strict=True))
    of_drug = weight["drug"] + weight["like"]  # molecules without a bit are like themselves alone
    assert of_drug == pytest.approx(1 / 1.49, abs=0.1)
    assert weight["noise"] == pytest.approx(0.49 / 1.49, abs=0.05)
    assert sum(weight.values()) - of_drug - weight["noise"] < 0.05
    told = process(Wells(torch.arange(60), torch.zeros(60, dtype=torch.int64), trained.treatment[:60]))
    held = torch.isin(torch.arange(60), trained.drug)
    assert torch.corrcoef(torch.stack([told[held].flatten(), effect[held].flatten()]))[0, 1] > 0.95


def test_values_without_spread_and_unknown_lines_do_no_harm():
    value = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    value[:, 2] = 0
    process = ResponseProcess(vectors(), torch.zeros(10, dtype=torch.bool), wells(30), 5)
    process.fit(value)
    asked = wells(4)
    found = process(Wells(asked.drug, torch.full((4,), -1), asked.treatment))
    assert torch.isfinite(found).all()
    assert (found[:, 2] == 0).all()
