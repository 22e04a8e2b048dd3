"""A folder of pictures, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.reader import Reader, batch_rows, frame

SUFFIXES = (".png", ".jpg", ".jpeg")


class Pictures(Reader):
    """PNG and JPEG files of one size, in the order of their names; pixels row by row, of each pixel its channels."""

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return bool(_pictures(path))

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        files = _pictures(path)
        first = _pixels(files[0])
        size = batch_rows(first.size)
        for begin in range(0, len(files), size):
            batch = []
            for file in files[begin : begin + size]:
                pixels = _pixels(file)
                if pixels.shape != first.shape:
                    sizes = f"{file} is {_size(pixels)}, but {files[0]} is {_size(first)}"
                    raise InputError(f"{sizes}; give all images the same size and colours")
                batch.append(pixels)
            yield frame(np.stack(batch))


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)


def _size(pixels: NDArray[np.generic]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels, {'colour' if pixels.ndim == 3 else 'grey'}"


def _pixels(path: Path) -> NDArray[np.generic]:
    """The pixels of an image, (height, width), or (height, width, 3) if it is coloured."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            kind = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
            if kind not in ("L", "RGB"):
                raise InputError(f"{path}: its pixels are {image.mode}; save it grey or as RGB, without transparency")
            return np.asarray(image.convert(kind))
    except InputError:
        raise
    except Exception as error:  # the library raises many kinds for damaged files
        raise InputError(f"{path} is not a readable image: {error}; get the file again") from error
