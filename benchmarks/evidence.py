"""Speed, memory and precision of the estimators of log p(y), beside pythae and beside bare matrix products.

    python benchmarks/evidence.py [--quick] [--json FILE] [--mnist FOLDER] [--threads 1 2] [--topics importance ...]

Prints a table per topic; ``--quick`` gives a rough answer within a minute. A name that ends in ``_ratio`` compares with a
peer: its time over ours, above 1 where ours is better. Topics without a peer run on the smallest number of threads: another
process on a core of the machine can slow two threads tenfold, one thread hardly.

Pythae is optional. It runs with the versions that this project pins and asks for two packages (imageio, dataclasses) that
nothing here needs, so install it without them:

    pip install pythae==0.1.2 --no-deps
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks import peers
from benchmarks.harness import Case, Place, cpu, fitted, medians, mnist_rows, model, places, random_rows
from benchmarks.report import Report, options
from vae import VAE
from vae.evidence import Annealing, MeanWithError, annealed_importance_sampling, importance_sampling, prior_sampling

TOPICS = ("importance", "memory", "prior", "cost", "bfloat16")
STANDARD_ERRORS = 5  # by which two estimates of the same number may differ


@dataclass(frozen=True)
class Sizes:
    """How much to measure: examples N, draws S, chains C, temperatures T and columns D of each topic.

    Attributes:
        repeats: Of which medians are taken; ``long_repeats`` where one takes long.
        epochs: Of training, first.
        factors: By which the base of the costs is multiplied, one of N, S, ... at a time.
    """

    repeats: int
    long_repeats: int
    epochs: int
    pythae_batches: tuple[int, ...]
    importance: dict[str, int]
    memory: dict[str, int]
    prior: dict[str, int]
    product_blocks: tuple[tuple[int, int], ...]
    importance_cost: dict[str, int]
    annealed_cost: dict[str, int]
    factors: tuple[int, ...]


FULL = Sizes(
    repeats=5,
    long_repeats=3,
    epochs=10,
    pythae_batches=(100, 200, 500, 1000),
    importance={"N": 100, "S": 1000},
    memory={"N": 20, "few": 1000, "many": 100_000},
    prior={"N": 10_000, "S": 100_000},
    product_blocks=((1024, 1024), (4096, 4096), (1024, 10_000)),
    importance_cost={"N": 40, "S": 512, "D": 784},
    annealed_cost={"N": 64, "C": 16, "T": 42},
    factors=(2, 4),
)
QUICK = Sizes(
    repeats=3,
    long_repeats=2,
    epochs=1,
    pythae_batches=(200, 500),
    importance={"N": 10, "S": 1000},
    memory={"N": 1, "few": 1000, "many": 100_000},
    prior={"N": 2_000, "S": 20_000},
    product_blocks=((1024, 1024), (1024, 10_000)),
    importance_cost={"N": 10, "S": 512, "D": 784},
    annealed_cost={"N": 16, "C": 4, "T": 22},
    factors=(2,),
)


def main() -> None:
    """Measure every topic."""
    options = parse()
    sizes, report = QUICK if options.quick else FULL, Report()
    rows = mnist_rows(options.mnist) if options.mnist else random_rows(10_000)
    fewest = cpu(min(options.threads))
    fewest.enter()
    vae = fitted(rows, sizes.epochs)
    everywhere = {"importance": importance, "prior": prior, "bfloat16": bfloat16}
    for topic in options.topics:
        for place in places([fewest.threads] if topic == "bfloat16" else options.threads) if topic in everywhere else ():
            everywhere[topic](report, place, vae.to(place.device), rows, sizes)
    if "memory" in options.topics:
        memory(report, fewest.threads, sizes)
    if "cost" in options.topics:
        cost(report, fewest, sizes)
    if options.json:
        report.write(options.json)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="with the original IDX files; random rows without it")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of CPU threads to measure with")
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=TOPICS, help="which tables; all by default")
    return parser.parse_args()


def importance(report: Report, place: Place, vae: VAE, rows: Tensor, sizes: Sizes) -> None:
    """(Example x sample) per second, beside pythae and beside the products of the generative network alone."""
    N, S = sizes.importance.values()
    y = rows[:N].to(place.device)
    theirs = pythae_cases(vae, y, S, sizes.pythae_batches)
    cases: dict[str, Case] = {"ours": partial(importance_sampling, vae, y, S), "products": peers.decoder_products(vae, N, S)}
    seconds = medians(place, cases | theirs, sizes.repeats)
    ours, products = seconds["ours"], seconds["products"]
    lines = [(name, f"{N * S / time:,.0f}", f"{time / ours:.2f}") for name, time in seconds.items()]
    report.table(f"Importance sampling, N = {N}, S = {S}, {place.name}", ("", "pairs a second", "time over ours"), lines)
    report.add(f"importance_pairs_per_second_{place.name}", N * S / ours)
    report.add(f"importance_over_products_{place.name}", ours / products)
    report.add(f"importance_over_products_{place.name}_ratio", products / ours)
    if theirs:
        fastest = min(theirs, key=lambda name: seconds[name])
        report.add(f"importance_vs_pythae_{place.name}_ratio", seconds[fastest] / ours)
        report.say(f"Compared with the fastest: {fastest}. {agreement(y, S)}")
    else:
        report.say("Pythae is not installed: pip install pythae==0.1.2 --no-deps")


def pythae_cases(vae: VAE, y: Tensor, S: int, batches: tuple[int, ...]) -> dict[str, Case]:
    """Pythae with each batch size; none where it is not installed."""
    if not peers.pythae_installed():
        return {}
    peer = peers.pythae(vae)
    return {f"pythae, batch_size {batch}": partial(peers.pythae_log_likelihood, peer, y, S, batch) for batch in batches}


def agreement(y: Tensor, S: int) -> str:
    """How far apart the two estimates are, with the initial weights: importance weights of trained ones have heavier tails.

    Raises:
        RuntimeError: If that is more than Monte Carlo noise explains: then the two do not measure the same thing.
    """
    vae = model().to(y.device)
    ours = importance_sampling(vae, y, S)
    torch.manual_seed(0)  # pythae draws from torch's global generator
    theirs = peers.pythae_log_likelihood(peers.pythae(vae), y, S, batch_size=S)
    difference, error = ours.mean - theirs, 2**0.5 * ours.monte_carlo_error
    if not abs(difference) < STANDARD_ERRORS * error:
        raise RuntimeError(f"our and pythae's log-likelihood must agree; got {ours.mean} and {theirs}, error {error} nats")
    return f"Untrained, ours is {ours.mean:.3f}, theirs {theirs:.3f}: {difference:+.3f} nats, standard error {error:.3f}."


def memory(report: Report, threads: int, sizes: Sizes) -> None:
    """Growth of the resident size, in a fresh process for each S."""
    N, few, many = sizes.memory.values()
    growth = {S: memory_growth(N, S, threads) / 2**20 for S in (few, many)}
    lines = [(f"S = {S:,}", f"{mib:.1f}", f"{mib / growth[few]:.2f}") for S, mib in growth.items()]
    report.table(f"Memory of importance sampling, N = {N}", ("", "growth, MiB", "over the first"), lines)
    report.add(f"memory_growth_{many}_mib", growth[many])
    report.add(f"memory_growth_{many}_over_{few}", growth[many] / growth[few])


def memory_growth(N: int, S: int, threads: int) -> int:
    """Bytes, by the script beside this one."""
    script = Path(__file__).with_name("peak_memory.py")
    command = [sys.executable, str(script), str(N), str(S), str(threads)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def prior(report: Report, place: Place, vae: VAE, rows: Tensor, sizes: Sizes) -> None:
    """Prior sampling, beside its one large product in the blocks that suit that best."""
    N, S = sizes.prior.values()
    y = rows[:N].to(place.device)
    products = {f"product in blocks of {a} x {b}": peers.large_product(y, S, a, b) for a, b in sizes.product_blocks}
    seconds = medians(place, {"ours": partial(prior_sampling, vae, y, S), **products}, sizes.long_repeats)
    fastest = min(products, key=lambda name: seconds[name])
    ours, product = seconds["ours"], seconds[fastest]
    lines = [(name, f"{time:.3f}", f"{ours / time:.2f}") for name, time in seconds.items()]
    report.table(f"Prior sampling, N = {N:,}, S = {S:,}, {place.name}", ("", "seconds", "ours over it"), lines)
    report.say(f"Compared with the fastest: {fastest}.")
    report.add(f"prior_over_product_{place.name}", ours / product)
    report.add(f"prior_over_product_{place.name}_ratio", product / ours)


def cost(report: Report, place: Place, sizes: Sizes) -> None:
    """Time as one size grows and the others stay."""
    for make, base in ((importance_case, sizes.importance_cost), (annealed_case, sizes.annealed_cost)):
        name = make.__name__.removesuffix("_case")
        grown = {f"{size}_x{factor}": {**base, size: base[size] * factor} for size in base for factor in sizes.factors}
        seconds = medians(place, {key: make(**some) for key, some in {"base": base, **grown}.items()}, sizes.long_repeats)
        ratios = {key: time / seconds["base"] for key, time in seconds.items()}
        start = ", ".join(f"{size} = {value}" for size, value in base.items())
        lines = [(key.replace("base", start), f"{seconds[key]:.3f}", f"{ratio:.2f}") for key, ratio in ratios.items()]
        report.table(f"Cost of {name} sampling, {place.name}", ("", "seconds", "over the first"), lines)
        for key in grown:
            report.add(f"cost_{name}_{key}", ratios[key])


def importance_case(N: int, S: int, D: int) -> Case:
    """Importance sampling of these sizes."""
    return partial(importance_sampling, model(D), random_rows(N, D), S)


def annealed_case(N: int, C: int, T: int) -> Case:
    """Annealing of these sizes."""
    annealing = Annealing(temperatures=T, leapfrog_steps=5, step_sizes=(0.3,) * 10)
    return partial(annealed_importance_sampling, model(), random_rows(N), C, annealing=annealing)


def bfloat16(report: Report, place: Place, vae: VAE, rows: Tensor, sizes: Sizes) -> None:
    """What the same noise gives under autocast to bfloat16, and how fast."""
    if not bfloat16_in_hardware(place.device):
        report.say(f"bfloat16: this {place.device.upper()} does not have it, so it is not measured.")
        return
    N, S = sizes.importance.values()
    single = partial(importance_sampling, vae, rows[:N].to(place.device), S)
    half = torch.autocast(place.device, torch.bfloat16)(single)
    seconds = medians(place, {"float32": single, "bfloat16": half}, sizes.repeats)
    estimate = single()
    difference = MeanWithError.of(half().log_likelihood - estimate.log_likelihood)
    small = abs(difference.mean) < estimate.monte_carlo_error
    ratio = seconds["float32"] / seconds["bfloat16"]
    lines = [
        ("mean paired difference, nats", f"{difference.mean:+.4f}"),
        ("its standard error", f"{difference.standard_error:.4f}"),
        ("Monte Carlo error of float32", f"{estimate.monte_carlo_error:.4f}"),
        ("float32's time over bfloat16's", f"{ratio:.2f}"),
    ]
    report.table(f"bfloat16 minus float32, N = {N}, S = {S}", ("", place.name), lines)
    report.say(f"The difference is {'below' if small else 'not below'} the Monte Carlo error.")
    report.add(f"bfloat16_difference_{place.name}", difference.mean)
    report.add(f"bfloat16_monte_carlo_error_{place.name}", estimate.monte_carlo_error)
    report.add(f"bfloat16_vs_float32_{place.name}_ratio", ratio)


def bfloat16_in_hardware(device: str) -> bool:
    """Whether products in bfloat16 have instructions of their own."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


if __name__ == "__main__":
    main()
