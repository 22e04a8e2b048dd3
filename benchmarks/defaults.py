"""Which settings suit the bundled digits: candidates beside the present params.yaml, compared on the validation rows.

    python benchmarks/defaults.py [--only NAME ...] [--seeds 0 1 2] [--old FILE] [--json FILE] [--quick]

Needs `data/prepared` (`make repro`). Each candidate is params.yaml with a few values changed, trained and scored as the stages
do, with the seeds given; its score is log p of the validation rows by importance sampling with 5,000 draws. What decides is
the difference to params.yaml, row by row, averaged over seeds; ± is one standard error over rows. The test rows are not
looked at, but with ``--old FILE``: then params.yaml and those of that file are compared, by annealed importance sampling, on
the validation rows and on the test rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import torch
from torch import Tensor

from benchmarks.report import Report, options
from pipeline.base.files import from_yaml
from pipeline.model.building import build, hidden_share
from pipeline.params.whole import Params, check_params
from pipeline.tables.schema import load_schema, load_split
from vae import VAE
from vae.evidence import Annealing, annealed_importance_sampling, importance_sampling

DRAWS = 5_000
ELBO = {"name": "elbo", "samples": 1, "kl": "monte_carlo"}
CANDIDATES: dict[str, dict[str, Any]] = {
    "output bias at random": {"model.output_bias": "random"},
    "cosine": {"train.schedule": "cosine"},
    "average of weights": {"train.ema_decay": 0.99},
    "IWAE, K = 5": {"train.objective": {"name": "iwae", "samples": 5}},
    "IWAE, K = 20": {"train.objective": {"name": "iwae", "samples": 20}},
    "DReG, K = 10": {"train.objective": {"name": "dreg", "samples": 10}},
    "8 x 8 PIWAE": {"train.objective": {"name": "piwae", "samples": 8, "averages": 8}},
    "sticking the landing": {"train.objective": {"name": "sticking_the_landing", "samples": 1}},
    "free bits": {"train.objective": {"name": "free_bits", "samples": 1, "kl": "closed_form", "nats": 0.1}},
    "mixture prior": {"model.prior": {"name": "gaussian_mixture", "components": 20}, "train.objective": ELBO},
    "VampPrior": {"model.prior": {"name": "vamp", "components": 100}, "train.objective": ELBO},
    "flow prior": {"model.prior": {"name": "flow"}, "train.objective": ELBO},
    "full covariance": {"model.posterior": {"name": "full_covariance_gaussian"}},
    "flow posterior": {"model.posterior": {"name": "flow"}, "train.objective": ELBO},
    "dropout in the generative network": {"model.generative.dropout": 0.1},
    "dropout in both": {"model.generative.dropout": 0.1, "model.inference.dropout": 0.1},
    "layer norm": {"model.generative.norm": "layer", "model.inference.norm": "layer"},
    "weight decay": {"train.weight_decay": 1e-5},
}
CANDIDATES["mixture prior, average of weights"] = CANDIDATES["mixture prior"] | CANDIDATES["average of weights"]
CANDIDATES["mixture prior, IWAE, K = 5"] = CANDIDATES["mixture prior"] | CANDIDATES["IWAE, K = 5"]


def main() -> int:
    """Print the table."""
    arguments, report = _arguments(), Report()
    torch.set_num_threads(2)
    params = from_yaml(Path("params.yaml").read_text())
    if arguments.old:
        _compare(report, params, from_yaml(arguments.old.read_text()), arguments.seeds)
    else:
        _candidates(report, params, arguments)
    if arguments.json:
        report.write(arguments.json)
    return 0


def _candidates(report: Report, params: dict[str, Any], arguments: argparse.Namespace) -> None:
    seeds, draws = ([0], 500) if arguments.quick else (arguments.seeds, DRAWS)
    names = arguments.only or (list(CANDIDATES)[:1] if arguments.quick else list(CANDIDATES))
    base = _scores(params, seeds, draws)
    report.say(f"params.yaml: {_with_error(base)} nats on {base.shape[1]} validation rows")
    lines = []
    for name in names:
        difference = _scores(_changed(params, CANDIDATES[name]), seeds, draws) - base
        report.add(f"{name} minus params.yaml", difference.mean().item())
        lines.append([name, _with_error(difference, sign="+"), " ".join(f"{value:+.2f}" for value in difference.mean(dim=1))])
        report.say(" ".join(lines[-1]))
    report.table("Candidates minus params.yaml, nats per validation row", ["", "difference", "by seed"], lines)


def _compare(report: Report, new: dict[str, Any], old: dict[str, Any], seeds: list[int]) -> None:
    before, after = ([_trained(check_params({**params, "seed": seed})) for seed in seeds] for params in (old, new))
    annealing = check_params(new).evaluate.annealing
    lines = []
    for split in ("valid", "test"):
        scores = [_log_likelihoods(models, split, None, annealing) for models in (before, after)]
        difference = scores[1] - scores[0]
        lines.append([split, *map(_with_error, scores), _with_error(difference, "+")])
        report.add(f"{split}_new_minus_old", difference.mean().item())
    report.table("log p(y), annealed, nats per row", ["rows", "old", "new", "new minus old, paired"], lines)


def _scores(params: Mapping[str, Any], seeds: list[int], draws: int) -> Tensor:
    """log p of each validation row for each seed, (seeds, N), float64."""
    return _log_likelihoods([_trained(check_params({**params, "seed": seed})) for seed in seeds], "valid", draws)


def _log_likelihoods(models: list[VAE], split: str, draws: int | None, annealing: Any = None) -> Tensor:
    """Of the raw rows of a split, by importance sampling with so many draws, or annealed."""
    rows = load_split(split)
    found = []
    for vae in models:
        y = vae.as_rows(rows)
        if draws is None:
            settings = Annealing(annealing.temperatures, annealing.leapfrog_steps)
            estimate = annealed_importance_sampling(vae, y, annealing.chains, annealing=settings)
        else:
            estimate = importance_sampling(vae, y, draws)
        found.append(estimate.log_likelihood)
    return torch.stack(found) + torch.from_numpy(load_schema().log_jacobian(rows))


def _trained(params: Params) -> VAE:
    schema = load_schema()
    settings = params.train.model_dump(exclude={"objective"}) | {"hide": hidden_share(params, schema), "progress": False}
    vae = build(params, schema)
    return vae.fit(load_split("train"), validation=load_split("valid"), seed=params.seed, **settings)


def _changed(params: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    changed = deepcopy(dict(params))
    for path, value in change.items():
        *sections, key = path.split(".")
        place = changed
        for section in sections:
            place = place[section]
        place[key] = value
    return changed


def _with_error(scores: Tensor, sign: str = "") -> str:
    """Mean and standard error over rows of the means over seeds."""
    rows = scores.mean(dim=0)
    return f"{rows.mean():{sign}.2f} ± {rows.std() / len(rows) ** 0.5:.2f}"


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=CANDIDATES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--old", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
