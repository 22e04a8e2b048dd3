"""Digests of ids: however they are written, in whichever type, they are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reading.columns.blocks import MISSING
from pipeline.reading.digests import canonical, id_digests


def digests_of(values: Any, missing: Any = ()) -> list[int | None]:
    found, lacking = id_digests(pd.Series(values), missing)
    return [None if lacks else digest for digest, lacks in zip(found.tolist(), lacking, strict=True)]


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["7", "7.0", "07", " 7", "+7", "7.", "007.00", "\t7 "], "7"),
        (["-7", "-7.0", "-07"], "-7"),
        (["0", "-0", "0.0", "000", "-.0"], "0"),
        (["7.5", "07.50", "+7.5"], "7.5"),
        (["0.5", ".5", "00.500"], "0.5"),
        (["10000000000000000", "1e+16", "1.0e+16"], "10000000000000000"),
        (["0.0000001", "1e-07"], "0.0000001"),
        (["9007199254740993", "9007199254740993.0", "0009007199254740993"], "9007199254740993"),
        (["A7"], "A7"),
        (["12E5"], "12E5"),  # a code in hexadecimal digits, not 1,200,000
        (["1e5"], "1e5"),
        (["1,234"], "1,234"),
        (["x 07"], "x 07"),
        (["Ünal", " Ünal"], "Ünal"),
        ([".", " ."], "."),
        (["9" * 5000], "9" * 5000),
    ],
)
def test_an_id_has_one_form(texts: list[str], form: str) -> None:
    assert {canonical(text) for text in texts} == {form}
    assert len(set(digests_of(texts))) == 1


def test_plain_ids_have_the_digests_that_they_had() -> None:
    """So that splits of before stay: numbers without needless zeros, and texts."""
    plain = ["7", "12", "7.5", "A7", "patient 3"]
    assert digests_of(plain) == pd.util.hash_array(np.array(plain, dtype=object)).tolist()
    assert digests_of([7, 12]) == digests_of([7.0, 12.0]) == digests_of(["7", "12"])
    dates = ["2020-01-01", "2020-01-02 10:00:00"]
    assert digests_of(pd.to_datetime(dates, format="mixed")) == digests_of(dates)


def test_large_numbers_stay_apart() -> None:
    """Which float64 does not tell apart."""
    numbers = [2**53, 2**53 + 1, 2**63 - 1, 2**63 - 2]
    assert digests_of(np.array(numbers)) == digests_of([str(number) for number in numbers])
    assert len(set(digests_of(np.array(numbers)))) == len(numbers)
    long = ["12345678901234567890123", "12345678901234567890124"]
    assert len(set(digests_of(long))) == 2


def test_ids_that_stand_for_no_value_lack() -> None:
    assert digests_of(sorted(MISSING)) == [None] * len(MISSING)
    assert digests_of([" ", " NA ", None, np.nan, pd.NA]) == [None] * 5
    codes = [-999, "?"]
    assert digests_of(["-999", "-999.0", "-0999.00", "?", " ? "], codes) == [None] * 5
    assert digests_of([-999], codes) == digests_of([-999.0], codes) == [None]
    assert None not in digests_of(["-99", "??", "9990"], codes)


def spelled(number: int, zeros: int, point: int, blanks: str, sign: bool) -> str:
    digits = "0" * zeros + str(abs(number)) + ("." + "0" * (point - 1) if point else "")
    return f"{blanks}{'-' if number < 0 else '+' * sign}{digits}{blanks}"


@settings(deadline=None, max_examples=50)
@given(data=st.data(), numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_any_way_of_writing_gives_the_same_digests(data: st.DataObject, numbers: list[int]) -> None:
    """Of texts and of typed columns; and others give others."""
    expected = digests_of([str(number) for number in numbers])
    ways = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", " ", "\t"]), st.booleans())
    assert digests_of([spelled(number, *data.draw(ways)) for number in numbers]) == expected
    assert digests_of(np.array(numbers, dtype=np.int64)) == digests_of(pd.array(numbers, dtype="Int64")) == expected
    assert len(set(expected)) == len(set(numbers))
    small = [number % 2**53 for number in numbers]
    assert digests_of(np.array(small, dtype=np.float64)) == digests_of([str(number) for number in small])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_a_typed_column_and_its_csv_agree(numbers: list[float]) -> None:
    frame = pd.DataFrame({"id": numbers})
    texts = frame.to_csv(index=False).splitlines()[1:]
    assert digests_of(numbers) == digests_of(texts)
