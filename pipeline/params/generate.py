"""``generate`` in params.yaml."""

from __future__ import annotations

from pydantic import Field

from pipeline.params.section import Common, Section


class Generate(Section):
    """``generate``: what is drawn from it."""

    samples: int = Field(ge=1)


class GenerateParams(Common):
    """What the stage generate reads of params.yaml."""

    generate: Generate
