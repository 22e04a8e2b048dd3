"""A folder of pictures, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.layout import check_picture
from pipeline.reading.formats.reader import Reader, batch_rows, files_beside, frame, is_hidden

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
FOLDER = "folder"  # the column that ``data.split`` may name
REMEDY = "save it grey or as RGB, of 8 bits and without transparency"
BITS_PER_SAMPLE = 258  # a tag of TIFF
OPAQUE = 255
BIT_DEPTH = 24  # where it stands in a PNG file


class Pictures(Reader):
    """Pictures of one size, in the order of their names; pixels row by row, of each pixel its channels.

    The column `FOLDER`, where ``data.split`` names it, says in which of the folders each is.
    """

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return bool(pictures_in(path))

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        by = dict(data.split or ())
        if data.shape is not None and by.get("stratify") == FOLDER and FOLDER not in data.exclude:
            raise InputError(f"data.split.stratify: {FOLDER} is no pixel of data.shape; put it into data.exclude: [{FOLDER}]")
        files = pictures_in(path)
        first = _pixels(files[0])
        check_picture(files[0], first.shape, data)
        size = batch_rows(first.size)
        for begin in range(0, len(files), size):
            part, batch = files[begin : begin + size], []
            for file in part:
                pixels = _pixels(file)
                if pixels.shape != first.shape:
                    sizes = f"{file} is {_size(pixels)}, but {files[0]} is {_size(first)}"
                    raise InputError(f"{sizes}; give all images the same size and colours")
                batch.append(pixels)
            folders = {FOLDER: [file.parent.relative_to(path).as_posix() for file in part]} if FOLDER in by.values() else {}
            yield frame(np.stack(batch)).assign(**folders)

    @override
    @classmethod
    def unread(cls, path: Path) -> list[str]:
        return files_beside(path, pictures_in(path))


def pictures_in(path: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names, without hidden ones."""
    if not path.is_dir():
        return []
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [file for file in files if not is_hidden(file.relative_to(path))]


def _size(pixels: NDArray[np.generic]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels, {'colour' if pixels.ndim == 3 else 'grey'}"


def _pixels(path: Path) -> NDArray[np.generic]:
    """The pixels of an image, (height, width), or (height, width, 3) if it is coloured."""
    from PIL import Image, ImageOps

    try:
        with path.open("rb") as file, Image.open(file) as image:  # by its path, the library maps turned TIFF files wrongly
            kind = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
            if kind not in ("L", "RGB"):
                raise InputError(f"{path}: its pixels are {image.mode}; {REMEDY}")
            if (bits := _bits(path, image)) > 8:
                raise InputError(f"{path}: its pixels are {kind} of {bits} bits; {REMEDY}, or all of them as one NPY array")
            if image.format != "MPO" and (count := getattr(image, "n_frames", 1)) > 1:  # what a camera adds is no frame
                raise InputError(f"{path} has {count} frames; save each as a picture of its own")
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., -1].min() < OPAQUE:
                raise InputError(f"{path}: some of its pixels are transparent; {REMEDY}")
            return np.asarray(ImageOps.exif_transpose(image).convert(kind))
    except InputError:
        raise
    except Exception as error:  # the library raises many kinds for damaged files
        raise InputError(f"{path} is not a readable image: {error}; get the file again") from error


def _bits(path: Path, image: Any) -> int:
    """The bits of a channel in the file, of which the library keeps eight without a word."""
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))))
    if image.format != "PNG":
        return 8
    with path.open("rb") as file:
        return file.read(BIT_DEPTH + 1)[BIT_DEPTH]
