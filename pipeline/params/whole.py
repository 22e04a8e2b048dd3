"""All of params.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.params.data import PrepareParams
from pipeline.params.evaluate import EvaluateParams
from pipeline.params.file import PARAMS_FILE, checked, leaves, read
from pipeline.params.generate import GenerateParams
from pipeline.params.train import TrainParams


class Params(GenerateParams, EvaluateParams, TrainParams, PrepareParams):
    """All of params.yaml, in its order.

    Attributes:
        cluster: The address of the Dask scheduler whose workers prepare and evaluate; None for this machine. Like ``workers``
            no param of DVC's, nor of MLflow's.
    """

    cluster: str | None = Field(None, min_length=1)

    @property
    def scheduler(self) -> str | None:
        """``cluster``, which may stand in ``data`` too."""
        return self.cluster or self.data.cluster

    def flat(self) -> dict[str, Any]:
        """Leaves by dotted path, as MLflow and DVC name them: ``model.latent_dim``; but those that decide nothing."""
        return dict(leaves(self.model_dump(mode="json", exclude={"workers", "cluster"})))


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: If the file is missing, is not YAML, or breaks a rule; one message lists all problems.
    """
    return check_params(read(path), str(path))


def check_params(content: Any, source: str = "params.yaml") -> Params:
    """The params that ``content``, as parsed from YAML, stands for.

    Raises:
        InputError: Listing every problem with its path.
    """
    return checked(content, Params, source, _conflicts(content))


def _conflicts(content: Any) -> Iterator[str]:
    """Values that do not go together; in content that may have other problems too."""
    data, likelihood = _at(content, "data"), _at(content, "model", "likelihood")
    fractions = [_at(data, "fractions").get(split) for split in ("train", "valid", "test")]
    total = sum(f for f in fractions if isinstance(f, float | int))
    if None not in fractions and abs(total - 1) > 1e-6:
        yield f"data.fractions: train, valid and test must add up to 1, not {total:g}"
    clusters = [address for section in (content, data) if (address := _at(section).get("cluster"))]
    if len(set(map(str, clusters))) > 1:
        yield f"data.cluster: {clusters[1]} is another than cluster: {clusters[0]}; remove data.cluster"
    bernoulli = likelihood.get("name") == "bernoulli"
    if data.get("binarize") is not None and not bernoulli:
        yield "data.binarize: makes values 0 and 1, which needs model.likelihood.name: bernoulli"
    if bernoulli and data.get("dequantize") is not None:
        yield (
            "model.likelihood.name: bernoulli needs values in {0, 1}: set data.dequantize: null, and data.binarize to a "
            "threshold, static or dynamic, unless the data is binary already"
        )
    for name in ("generative", "inference"):
        if _at(content, "model", name).get("norm") == "batch":
            if _at(content, "train").get("devices", 1) != 1:
                yield f"model.{name}.norm: batch needs whole batches on one device: set train.devices to 1, or norm to layer"
            if _at(content, "train").get("ema_decay") is not None:
                yield f"model.{name}.norm: batch has no averaged statistics: set train.ema_decay to null, or norm to layer"


def _at(content: Any, *steps: str) -> Mapping[str, Any]:
    for step in steps:
        content = content.get(step) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}
