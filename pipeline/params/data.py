"""``data`` in params.yaml, which the first stage reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.params.section import Common, Section
from pipeline.tables.kinds import AnyKind
from pipeline.tables.transforms import TRANSFORMS

WHITESPACE = "whitespace"  # the delimiter of tables whose columns are aligned by spaces or tabs
COLOURS = (1, 3)
Layout = Literal["NHWC", "NCHW", "HWCN"]  # axes of an array of pictures: rows, height, width and, if it has four, channels
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Fractions(Section):
    """``data.fractions``: the shares of the rows."""

    train: float = Field(gt=0, lt=1)
    valid: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)


class Files(Section):
    """``data.files``: the files of the splits, in the folder ``data.path``; a split without one gets its share of train's.

    ``FILE:KEY`` is an array of a file that has several.
    """

    train: str
    valid: str | None = None
    test: str | None = None


class SplitBy(Section):
    """``data.split``: what decides in which split a row is.

    Attributes:
        column: A column that says the split.
        group: A column whose equal values stay together.
        stratify: A column of which every split has each value's share.
        together: Rows that stand more than once, value for value, stay together.
        hash: A column whose hash decides, whatever else is in the file; True for the row's content.
    """

    column: str | None = None
    group: str | None = None
    stratify: str | None = None
    together: Literal["copies"] | None = None
    hash: str | bool | None = None

    @field_validator("hash", mode="before")
    @classmethod
    def _column_or_content(cls, value: Any) -> Any:
        if value is not None and value is not True and not isinstance(value, str):
            raise ValueError(f"must name a column, or be true, for the row's content; got {value!r}")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(given := [name for name, value in self if value is not None]) != 1:
            names = "column, group, stratify, together and hash"
            raise ValueError(f"must name one of {names}; got {' and '.join(given) or 'none'}")
        return self

    @property
    def by(self) -> tuple[str, str | None]:
        """Which of them it is, and the column that it names; None for the content of rows."""
        what, value = next((what, value) for what, value in self if value is not None)
        return what, value if isinstance(value, str) and what != "together" else None


class ColumnOptions(Section):
    """``data.columns.NAME``: what is known of a column. A kind alone may stand for all of it."""

    kind: AnyKind | None = None
    order: Annotated[list[str | int | float], Field(min_length=2)] | None = None
    other: bool = False
    transform: Literal[tuple(TRANSFORMS)] | None = None  # type: ignore[valid-type]
    dequantize: Annotated[float, Field(gt=0)] | None = None

    @property
    def declared(self) -> AnyKind | None:
        """The kind, or that which the other options are for."""
        if self.kind is None and (self.transform is not None or self.dequantize is not None):
            return "continuous"
        if self.kind is None and self.other:
            return "categorical"
        return "ordinal" if self.kind is None and self.order is not None else self.kind

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, content: Any) -> Any:
        return {"kind": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        for given, kinds, names in (
            (self.transform or self.dequantize, ("continuous",), "transform and dequantize"),
            (self.order, ("ordinal", "categorical", "binary"), "order"),
            (self.other, ("categorical",), "other"),
        ):
            if given and self.declared not in kinds:
                raise ValueError(f"{names} is for columns that are {' or '.join(kinds)}; this one is declared {self.declared}")
        if self.order is not None and len(set(map(str, self.order))) < len(self.order):
            raise ValueError(f"order must name each value once; got {self.order}")
        return self


def _names(names: Any) -> Any:
    """The names of columns as texts: those of a file without names are numbered."""
    names = _in_list(names)
    return [str(name) if type(name) is int else name for name in names] if isinstance(names, list) else names


def _in_list(content: Any) -> Any:
    """One text or number stands for a list of it."""
    return [content] if isinstance(content, str | int | float) else content


class Data(Section):
    """``data``: what to read and how to prepare it."""

    path: str = Field(min_length=1)
    files: Files | None = None
    key: str | None = None
    delimiter: str | None = None
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'"] | None = None
    signs: list[Annotated[str, Field(min_length=1)]] = Field([])
    header: bool = True
    exclude: Annotated[list[str], BeforeValidator(_names)] = Field([])
    missing: Annotated[list[str | int | float], BeforeValidator(_in_list)] = Field([])
    columns: dict[str, ColumnOptions] = Field({})
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)] | None = None
    layout: Layout | None = None
    units: str = "units of the data"
    fractions: Fractions
    split: SplitBy | None = None
    dequantize: float | None = Field(None, gt=0)
    binarize: float | Literal["static", "dynamic"] | None = None
    scale: Literal[tuple(TRANSFORMS)] = "standardize"  # type: ignore[valid-type]
    cluster: str | None = Field(None, min_length=1, exclude=True)  # another place of the key beside workers

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        delimiter = "\t" if delimiter == "\\t" else delimiter  # as YAML gives what is not in double quotes
        if delimiter is not None and delimiter != WHITESPACE and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(
                f"must be one character, such as ; or \\t, or {WHITESPACE}, any number of spaces; got {delimiter!r}"
            )
        return delimiter

    @model_validator(mode="after")
    def _other_points(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands must differ; got {self.decimal!r} for both")
        return self

    @field_validator("shape")
    @classmethod
    def _grey_or_colour(cls, shape: list[int] | None) -> list[int] | None:
        if shape is not None and len(shape) == 3 and shape[2] not in COLOURS:
            raise ValueError(f"must be [height, width], or [height, width, channels] with 1 or 3 channels; got {shape}")
        return shape


class PrepareParams(Common):
    """What the stage prepare reads of params.yaml."""

    data: Data
