"""Small drug response data for the models' tests: specs and batches without a datamodule."""

from __future__ import annotations

import torch

from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.spec import DrugResponseSpec, MoleculeList

LINES = ["A375", "HT115", "MCF7"]


def response_spec(genes=20, drugs=12, features=16, lines=3, known=None, seed=0) -> DrugResponseSpec:
    """Random molecule vectors and control levels of ``lines`` lines."""
    draw = torch.Generator().manual_seed(seed)
    names = tuple(f"g{i}" for i in range(genes))
    control = 8 + torch.randn(lines, genes, generator=draw)
    molecules = MoleculeList(
        id=tuple(f"drug{i}" for i in range(drugs)),
        smiles=("",) * drugs,
        vectors=(torch.rand(drugs, features, generator=draw) < 0.3).float(),
        known=torch.ones(drugs, dtype=torch.bool) if known is None else torch.tensor(known),
        trained=torch.ones(drugs, dtype=torch.bool),
        features={},
    )
    center, scale = control.mean(0), control.std(0, correction=0).clamp(min=0.5)
    return DrugResponseSpec(
        *("response", names, names, (), center, scale, None, "hash"),
        molecules=molecules,
        lines=tuple(LINES[:lines] if lines <= 3 else [f"L{i}" for i in range(lines)]),
        line_control=control,
        line_treated=control + 0.2 * torch.randn(lines, genes, generator=draw),
        basal_scale=torch.ones(control.shape[1]),
        line_basal=control,
        change_center=0.1 * torch.randn(genes, generator=draw),
        change_scale=torch.ones(genes),
        dose_range=(1.0, 100.0),
        time_range=(24.0, 24.0),
    )


def response_batch(spec: DrugResponseSpec, n=32, seed=1, line=None, drug=None) -> ResponseBatch:
    """n samples; controls scatter around their line's."""
    draw = torch.Generator().manual_seed(seed)
    lines, drugs = len(spec.lines), len(spec.molecules.id)
    line_B = torch.randint(lines, (n,), generator=draw) if line is None else torch.full((n,), line)
    drug_B = torch.randint(drugs, (n,), generator=draw) if drug is None else torch.full((n,), drug)
    control = spec.line_control[line_B] + 0.3 * torch.randn(n, len(spec.genes), generator=draw)
    target = control + torch.randn(n, len(spec.genes), generator=draw)
    log_dose = torch.randint(-1, 3, (n,), generator=draw).float() / 2
    log_time = torch.full((n,), 4.6)
    plate = spec.center.expand(n, -1)
    return ResponseBatch(target, torch.arange(n), drug_B, line_B, log_dose, log_time, control, control, plate, plate)


def as_request(batch: ResponseBatch) -> ResponseBatch:
    """The same samples, of whose plates nothing treated is known."""
    import dataclasses

    return dataclasses.replace(batch, plate_mean=torch.full_like(batch.plate_mean, torch.nan))


def planted(spec: DrugResponseSpec, batch: ResponseBatch, seed=5) -> ResponseBatch:
    """The batch with targets whose change is linear in the molecule, scaled by the line, plus a share of all."""
    import dataclasses

    draw = torch.Generator().manual_seed(seed)
    vectors = spec.molecules.vectors
    effect = torch.randn(vectors.shape[1], len(spec.genes), generator=draw) / vectors.shape[1] ** 0.5
    force = torch.tensor([1.0, 1.5, -1.0])[batch.line]
    change = spec.change_center + force[:, None] * ((vectors - vectors.mean(0))[batch.drug] @ effect)
    return dataclasses.replace(batch, target=batch.input_control + 2 * change)


def total(model, batch: ResponseBatch) -> torch.Tensor:
    """The sum of all terms."""
    return torch.stack(list(model.losses(batch, model(batch)).values())).sum()


def dead_parameters(model, batch: ResponseBatch) -> list[str]:
    """Names of the parameters without a gradient after one step."""
    total(model, batch).backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def correlation(model, batch: ResponseBatch) -> tuple[float, float]:
    """Mean Pearson over genes of the measured change with the predicted one, and with the mean change."""
    with torch.no_grad():
        predicted = model(batch) - batch.input_control
    change = batch.target - batch.input_control

    def score(other: torch.Tensor) -> float:
        found = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(change, other, strict=True)]
        return float(torch.stack(found).mean())

    return score(predicted), score(change.mean(0).expand_as(change))


def train(model, batch: ResponseBatch, steps=80, lr=5e-3) -> None:
    """Full-batch AdamW on the sum of the terms, router terms as light as in the config."""
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=lr, weight_decay=0.01)
    weights = {"balance": 0.01, "z": 0.001, "kl": 1e-3, "match": 1e-2}
    for _ in range(steps):
        optimizer.zero_grad()
        terms = model.losses(batch, model(batch))
        torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum().backward()
        optimizer.step()
    model.eval()
