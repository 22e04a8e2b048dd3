"""Files that are no tables, known by their first bytes, and what to do with them."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.reading.formats.reader import COMPRESSED, LISTED, ZIP, packing

UNPACK = "unpack it, and name the file or folder that was in it"
FOREIGN = {
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|II\*\0|MM\0\*|RIFF.{4}WEBP": (
        "one picture, and rows are the pictures of a folder; set data.path to {path.parent}"
    ),
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a workbook or another document; save the sheet as CSV or Parquet",
    rb".{257}ustar": f"a tar archive; {UNPACK}",
    rb"7z\xbc\xaf\x27\x1c": f"a 7z archive; {UNPACK}",
    rb"Rar!\x1a\x07": f"a RAR archive; {UNPACK}",
    rb"PK\x05\x06": "an empty ZIP archive; get the file again",
    rb"\x1f[\x9d\xa0]": f"compressed by compress; {UNPACK}",
    rb"\x80[\x02-\x05]": "a pickle, which is not loaded, as it could execute code; save arrays by np.save, tables as Parquet",
    rb"ARROW1\0\0": "an Arrow or Feather file; save the table as Parquet",
    rb"SQLite format 3\0": "an SQLite database; save the table as CSV or Parquet",
}


def check_kind(path: Path, head: bytes) -> None:
    """Refuse a file that begins as no table does.

    Args:
        path: The file.
        head: Its first bytes, decompressed.

    Raises:
        InputError: Saying what it is, and what to do with it.
    """
    if packing(path) is not None and head.startswith((*COMPRESSED, ZIP)):
        raise InputError(f"{path} is compressed twice; {UNPACK}")
    for pattern, what in FOREIGN.items():
        if re.match(pattern, head, re.DOTALL):
            raise InputError(f"{path} is {what.format(path=path)}")


def not_unpacked(path: Path, names: list[str]) -> InputError:
    """What is said of a ZIP archive of several files, none of them an array."""
    if any(name.startswith("xl/") or name == "content.xml" for name in names):
        return InputError(f"{path} is a workbook; save the sheet as CSV or Parquet")
    if not names:
        return InputError(f"{path} is an empty ZIP archive; get the file again")
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    return InputError(
        f"{path} is a ZIP archive of {len(names)} files ({listed}); unpack it, and name the folder or one of them in data.path"
    )
