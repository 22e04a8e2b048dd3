"""Splits: as given, at random, by groups, by strata, by copies and by hashes."""

from __future__ import annotations

import re
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from pipeline.params.data import Data, Fractions, SplitBy
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.passes import block_of
from pipeline.reading.splits import RowDigests, Tally, split_rows
from pipeline.stages import prepare
from pipeline.tables.schema import SPLITS, load_groups, load_index, load_schema
from tests.test_readers import data_of
from tests.workspace import read_table, table, write_params, write_table

Index = dict[str, NDArray[np.int64]]


def split(frame: pd.DataFrame, given_to: list[str] | None = None, seed: int = 0, rows: int = 37, **options: Any) -> Index:
    """The rows of each split, drawn in blocks of ``rows``."""
    data = Data(path="table.csv", fractions=Fractions(train=0.6, valid=0.2, test=0.2), **options)
    labels = np.array([-1] * len(frame) if given_to is None else [SPLITS.index(name) for name in given_to], dtype=np.int8)
    blocks, facts = list[Block](), list[Facts]()
    for number, first in enumerate(range(0, len(frame), rows)):
        part = slice(first, first + rows)
        block, columns = block_of(frame[part], labels[part], data, number, first)
        blocks.append(block)
        facts = list(map(add, facts, columns)) if facts else columns
    copies = None
    if data.split is not None and data.split.together:
        copies = RowDigests([(column.name, position, column.is_number) for position, column in enumerate(facts)])
    tallies = [Tally.of(block, copies) for block in blocks]
    splits = split_rows(tallies, data, seed, np.random.default_rng(seed), copies)
    labels = np.concatenate([splits.labels(block) for block in blocks])
    index = {name: np.flatnonzero(labels == part) for part, name in enumerate(SPLITS)}
    assert splits.rows == {name: len(part) for name, part in index.items()}
    return index


def is_partition(index: Index, rows: int) -> bool:
    return sorted(np.concatenate(list(index.values()))) == list(range(rows)) and all(
        (np.diff(part) > 0).all() for part in index.values()
    )


def test_rows_of_files_stay_and_what_is_missing_is_drawn_from_the_training_rows() -> None:
    frame = pd.DataFrame({"a": range(100)})
    index = split(frame, ["train"] * 80 + ["test"] * 20)
    assert is_partition(index, 100)
    assert index["test"].tolist() == list(range(80, 100))
    assert len(index["valid"]) == 20  # 0.2 / (0.6 + 0.2) of 80
    assert not np.array_equal(index["valid"], np.arange(60, 80))
    index = split(frame, ["train"] * 50 + ["valid"] * 30 + ["test"] * 20)
    assert [len(index[name]) for name in SPLITS] == [50, 30, 20]


def test_a_column_says_the_split() -> None:
    names = ["train"] * 5 + ["Validation"] * 3 + ["test "] * 2
    index = split(pd.DataFrame({"a": range(10), "part": names}), split=SplitBy(column="part"))
    assert {name: part.tolist() for name, part in index.items()} == {
        "train": [0, 1, 2, 3, 4],
        "valid": [5, 6, 7],
        "test": [8, 9],
    }
    with pytest.raises(InputError, match=r"column 'part', row 10: expected train, valid or test, got 'tset'; mend the cell"):
        split(pd.DataFrame({"a": range(10), "part": [*names[:9], "tset"]}), split=SplitBy(column="part"))
    with pytest.raises(InputError, match=r"data.split.column: no column 'other'"):
        split(pd.DataFrame({"a": range(10)}), split=SplitBy(column="other"))


@settings(deadline=None)
@given(groups=st.lists(st.integers(0, 40), min_size=60, max_size=200), seed=st.integers(0, 2**32 - 1))
def test_groups_stay_together(groups: list[int], seed: int) -> None:
    """Every split is within half of the largest group at each of its ends of its share."""
    frame = pd.DataFrame({"a": range(len(groups)), "who": groups})
    if max(np.bincount(groups)) > 9:  # a few large groups may leave a split empty
        groups = list(range(len(groups)))
        frame["who"] = groups
    index = split(frame, seed=seed, split=SplitBy(group="who"))
    assert is_partition(index, len(groups))
    whose = np.array(groups)
    for name, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not set(whose[index[name]]) & set(whose[index[other]])
    largest = np.bincount(whose).max()
    for name, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert abs(len(index[name]) - share * len(groups)) <= largest + 1e-9


@settings(deadline=None)
@given(strata=st.lists(st.sampled_from("aaaabbc"), min_size=60, max_size=200), seed=st.integers(0, 2**32 - 1))
def test_every_stratum_has_its_share_of_every_split(strata: list[str], seed: int) -> None:
    """To within two rows of each stratum, and of all rows to within one."""
    frame = pd.DataFrame({"a": range(len(strata)), "kind": strata})
    index = split(frame, seed=seed, split=SplitBy(stratify="kind"))
    assert is_partition(index, len(strata))
    for name, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert abs(len(index[name]) - share * len(strata)) < 2
        for kind in set(strata):
            count = strata.count(kind)
            assert abs(sum(strata[row] == kind for row in index[name]) - share * count) < 3


def test_strata_and_groups_are_drawn_evenly() -> None:
    """Over 150 seeds each row is in the test rows as often as its share says.

    Of 30 counts of a binomial the largest deviation is beyond 4.8 standard deviations once in 8,000 times.
    """
    frame = pd.DataFrame({"a": range(30), "kind": ["a"] * 21 + ["b"] * 9})
    for by in (SplitBy(stratify="kind"), SplitBy(group="a"), None):
        counts = np.zeros(30)
        for seed in range(150):
            counts[split(frame, seed=seed, rows=11, split=by)["test"]] += 1
        assert np.abs(counts - 30).max() < 4.8 * np.sqrt(150 * 0.2 * 0.8)


def test_blocks_are_drawn_without_replacement() -> None:
    """How many test rows lie in the first block is hypergeometric: mean and variance over 1,000 seeds to five standard errors.

    A right split misses them about once in a million times; the variance of fixed counts is 0, of binomial ones 1.5 times it.
    """
    frame = pd.DataFrame({"a": range(30)})
    counts = [(split(frame, seed=seed, rows=11)["test"] < 11).sum() for seed in range(1000)]
    expected = stats.hypergeom(30, 6, 11)
    assert abs(np.mean(counts) - expected.mean()) < 5 * expected.std() / np.sqrt(1000)
    assert np.var(counts) == pytest.approx(expected.var(), rel=5 * np.sqrt((expected.stats("k") + 2) / 1000))


BY = [("group", "who"), ("stratify", "who"), ("column", "part")]


@pytest.mark.parametrize(("what", "name"), BY)
@pytest.mark.parametrize("gap", [np.nan, None, "", " ", "NA", " nan ", "?", "-999.0"])
def test_gaps_in_what_is_split_by_are_refused(what: str, name: str, gap: Any) -> None:
    frame = pd.DataFrame({"a": range(20), name: [*["train", "valid", "test", "train"] * 4, *["test"] * 3, gap]})
    by = {"split": SplitBy(**{what: name}), "missing": ["?", -999]}
    with pytest.raises(InputError, match=rf"data.split.{what}: column '{name}' has no value in row 20; fill it, leave it out"):
        split(frame, **by)
    frame[name] = gap
    with pytest.raises(InputError, match=r"has no value in 20 rows \(1, 2, 3, 4, 5, 6, ...\); fill them, leave them"):
        split(frame, rows=4, **by)


def test_gaps_of_typed_ids_are_refused() -> None:
    for ids in ([1.0] * 19 + [np.nan], pd.array([1] * 19 + [pd.NA], dtype="Int64"), [1] * 19 + [-999]):
        with pytest.raises(InputError, match=r"data.split.group: column 'who' has no value in row 20; fill it"):
            split(pd.DataFrame({"a": range(20), "who": ids}), split=SplitBy(group="who"), missing=[-999])


@settings(deadline=None, max_examples=50)
@given(data=st.data(), ids=st.lists(st.integers(0, 30), min_size=60, max_size=120), seed=st.integers(0, 2**32 - 1))
def test_the_split_does_not_depend_on_how_ids_are_written(data: st.DataObject, ids: list[int], seed: int) -> None:
    """Nor on the type of their column; no group is in two parts."""
    frame = pd.DataFrame({"a": range(len(ids))})
    ways = st.sampled_from(["{}", "{}.0", "0{}", " {}", "{}.", "+{} ", "00{}.00"])
    spelled = [data.draw(ways).format(number) for number in ids]
    for what in ("group", "stratify"):
        columns = (ids, [float(number) for number in ids], list(map(str, ids)), spelled)
        try:
            splits = [split(frame.assign(who=column), seed=seed, split=SplitBy(**{what: "who"})) for column in columns]
        except InputError as error:  # of few large groups
            assert "are needed; use more rows" in str(error)  # noqa: PT017
            continue
        assert all(np.array_equal(other[name], splits[0][name]) for other in splits for name in SPLITS)
        whose = [{ids[row] for row in splits[-1][name]} for name in SPLITS]
        assert what == "stratify" or sum(map(len, whose)) == len(set(ids))


@pytest.mark.parametrize("given_to", [{}, {"column": "a", "group": "b"}, {"group": "a", "hash": True}])
def test_one_way_to_split_is_named(given_to: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must name one of column, group, stratify, together and hash; got"):
        SplitBy(**given_to)


def copied(rows: int, different: int, seed: int = 0) -> pd.DataFrame:
    """Rows of numbers and texts of which some stand more than once, in random order."""
    rng = np.random.default_rng(seed)
    kinds = np.array(["red", "green", "7", "07"])[rng.integers(0, 4, different)]
    single = pd.DataFrame({"x": rng.normal(size=different), "n": rng.integers(0, 9, different), "kind": kinds})
    order = rng.permutation([*range(different), *rng.integers(0, different, rows - different)])
    return single.iloc[order].reset_index(drop=True)


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(61, 150), seed=st.integers(0, 2**32 - 1), at_once=st.integers(5, 160))
def test_copies_stay_together(rows: int, seed: int, at_once: int) -> None:
    """Whatever the blocks; each split is within half of the most copies of its share."""
    frame = copied(rows, 60, seed)
    by = SplitBy(together="copies")
    index = split(frame, seed=seed, rows=at_once, split=by)
    assert is_partition(index, rows)
    texts = frame.astype(str).agg("|".join, axis=1)
    assert sum(texts.iloc[part].nunique() for part in index.values()) == 60
    most = texts.value_counts().max()
    for name, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert abs(len(index[name]) - share * rows) <= most + 1e-9
    other = split(frame, seed=seed, rows=rows, split=by)
    assert all(np.array_equal(index[name], other[name]) for name in SPLITS)


def test_prepare_keeps_copies_together_and_counts_errors_over_them(workspace: Path) -> None:
    """As the note on copies in two splits proposes; columns that are left out, such as ids, make no row another."""
    frame = copied(240, 186).assign(id=[f"row {k}" for k in range(240)])
    write_table(workspace, frame)
    write_params(workspace)
    prepare.main()
    (note,) = (note for note in load_schema().notes if "value for value" in note and "test rows" in note)
    remedy = note.partition("keep them in one split by ")[2].partition(";")[0]
    section, _, value = remedy.partition(": ")
    write_params(workspace, **{section: from_yaml(value)})
    prepare.main()
    assert load_schema().left_out.keys() == {"id"}
    notes = load_schema().notes
    assert not [note for note in notes if "value for value" in note]
    assert re.match(r"240 rows are 186 different ones \(1 to \d rows, median 1\): copies were kept in one split", notes[-1])
    texts = frame.drop(columns="id").astype(str).agg("|".join, axis=1)
    for name in SPLITS:
        groups = load_groups(name)
        assert groups is not None
        assert np.array_equal(groups, pd.factorize(texts.iloc[load_index(name)])[0])
    write_table(workspace, copied(186, 186))
    prepare.main()
    assert load_groups("test") is None  # each row is one of its own


IDS = st.lists(st.integers(0, 10**6), min_size=200, max_size=300, unique=True)


def hashed(frame: pd.DataFrame, seed: int, by: str | bool, rows: int = 64, **options: Any) -> dict[Any, str]:
    """The split of each row, by its number in ``id``."""
    index = split(frame, seed=seed, rows=rows, split=SplitBy(hash=by), exclude=["id"] if by is True else [], **options)
    return {frame["id"].iloc[row]: name for name, part in index.items() for row in part}


@settings(deadline=None, max_examples=40)
@given(data=st.data(), ids=IDS, seed=st.integers(0, 2**32 - 1), by=st.sampled_from(["id", True]))
def test_rows_that_come_and_go_move_no_other(data: st.DataObject, ids: list[int], seed: int, by: str | bool) -> None:
    """Nor does another order, other blocks, other types or another order of the columns."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": ids, "x": rng.normal(size=len(ids)), "kind": rng.choice(["a", "7", "b"], len(ids))})
    whole = hashed(frame, seed, by)
    kept = rng.permutation(len(ids))[: data.draw(st.integers(150, len(ids)))]
    part = frame.iloc[kept].reset_index(drop=True)
    for rows in (part, part.astype({"id": str, "x": str}), part[["kind", "x", "id"]]):
        parts = hashed(rows, seed, by, rows=data.draw(st.integers(20, 300)))
        assert {int(number): name for number, name in parts.items()} == {number: whole[number] for number in part["id"]}


def test_content_is_the_same_in_all_formats(tmp_path: Path) -> None:
    """Truth values, dates and times, too: the Parquet that a CSV becomes has the same split."""
    rng = np.random.default_rng(0)
    days = pd.to_datetime("2020-01-01") + pd.to_timedelta(np.arange(300), "D")
    times = days + pd.to_timedelta(rng.integers(0, 9, 300), "h")
    frame = pd.DataFrame({"id": range(300), "yes": rng.random(300) < 0.5, "day": days.date, "time": times})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    text, typed = (hashed(read_table(data_of(tmp_path / name))[0], 0, True) for name in ("a.csv", "a.parquet"))
    assert {int(number): name for number, name in text.items()} == typed


@pytest.mark.parametrize("by", ["id", True])
def test_hashes_give_each_split_its_share(by: str | bool) -> None:
    """Of rows numbered from 0 on, over 40 seeds: 120 counts of a binomial beyond 4.8 standard deviations once in 5,000 times.

    And seeds are independent: two put a row into one split as often as 0.6^2 + 0.2^2 + 0.2^2 says, likewise.
    """
    n = 2000
    frame = pd.DataFrame({"id": range(n), "x": np.arange(n) / 8})
    labels = [np.array([*hashed(frame, seed, by, rows=n).items()])[:, 1] for seed in range(40)]
    for found in labels:
        for name, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
            assert abs((found == name).sum() - share * n) < 4.8 * np.sqrt(n * share * (1 - share))
    parts = [hashed(frame, seed, by, rows=n) for seed in range(2)]
    alike = sum(parts[0][row] == parts[1][row] for row in range(n))
    assert abs(alike - 0.44 * n) < 4.8 * np.sqrt(n * 0.44 * 0.56)


KNOWN_BY_ID, KNOWN_BY_CONTENT = "arrerareerraarrrrareeerraarere", "rerrrarrrarrraarerarerarerrrar"  # tRain, vAlid, tEst


def test_the_split_of_an_id_stays_from_version_to_version() -> None:
    """These were drawn once; whoever changes them moves rows of everyone's tables."""
    frame = pd.DataFrame({"id": [f"p{k}" for k in range(30)], "x": np.arange(30) / 4, "kind": [*"abc"] * 10})
    letters = {by: "".join(hashed(frame, 0, by)[number][1] for number in frame["id"]) for by in ("id", True)}
    assert letters == {"id": KNOWN_BY_ID, True: KNOWN_BY_CONTENT}


def test_ids_stay_in_their_split_however_many_rows_they_have(workspace: Path) -> None:
    who = np.repeat(np.arange(30), 4)
    write_table(workspace, table(rows=120).assign(who=who))
    write_params(workspace, **{"data.split": {"hash": "who"}, "data.fractions": {"train": 0.6, "valid": 0.2, "test": 0.2}})
    prepare.main()
    assert load_schema().left_out == {"who": "decides the split"}
    assert load_schema().notes[:2] == [
        "rows were split by a hash of 'who', so that each stays in its split whatever else is in the file",
        "rows were split by 30 groups of 'who' (4 rows each)",
    ]
    assert sum(len(set(who[load_index(name)])) for name in SPLITS) == 30
    assert len(set(np.asarray(load_groups("test")))) == len(set(who[load_index("test")]))
    write_table(workspace, table(rows=120).assign(who=range(120)))
    prepare.main()
    assert load_groups("test") is None  # each row is one of its own
    write_params(workspace, **{"data.split": {"hash": True}})
    prepare.main()
    assert load_schema().notes[0].startswith("rows were split by a hash of their content")
    assert load_groups("test") is None


def test_hashes_and_files() -> None:
    """A file settles its split; another gets its share of the training rows, and too few rows are refused."""
    frame = pd.DataFrame({"id": range(400), "x": np.arange(400) / 8})
    index = split(frame, ["train"] * 300 + ["test"] * 100, split=SplitBy(hash="id"))
    assert index["test"].tolist() == list(range(300, 400))
    assert abs(len(index["valid"]) - 75) < 4.8 * np.sqrt(300 * 0.25 * 0.75)  # once in 600,000 times
    few = frame[:6]
    with pytest.raises(InputError, match=r"data.fractions.\w+: gives [01] of the 6 rows of table.csv, and 2 are needed"):
        [split(few, seed=seed, split=SplitBy(hash="id")) for seed in range(5)]
    for value in (False, 3, ["id"]):
        with pytest.raises(ValueError, match="must name a column, or be true, for the row's content; got "):
            SplitBy(hash=value)


def test_prepare_splits_by_a_group_that_the_model_does_not_see(workspace: Path) -> None:
    who = np.repeat(np.arange(20), 3)
    write_table(workspace, table().assign(who=who))
    write_params(workspace, **{"data.split": {"group": "who"}})
    prepare.main()
    assert load_schema().names == ["a", "b", "c", "d"]
    assert load_schema().left_out == {"who": "says the group"}
    groups = [set(who[load_index(name)]) for name in SPLITS]
    assert sum(map(len, groups)) == 20
    assert load_schema().notes[0] == "rows were split by 20 groups of 'who' (3 rows each)"


def test_groups_that_stand_in_two_of_the_given_files_are_noted(workspace: Path) -> None:
    frame = table().assign(who=np.repeat(np.arange(20), 3))
    write_table(workspace, frame[:44], "train.csv")
    write_table(workspace, frame[44:], "test.csv")
    files = {"train": "train.csv", "test": "test.csv"}
    write_params(workspace, **{"data.path": "data/raw", "data.files": files, "data.split": {"group": "who"}})
    prepare.main()
    assert load_schema().notes[0] == "rows were split by 20 groups of 'who' (3 rows each)"
    assert load_schema().notes[1].startswith("1 of these groups have rows in more than one of the files in data.files")


def test_prepare_hands_on_the_groups_by_small_numbers(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their first rows, whatever the blocks; without groups there is no such file."""
    who = np.random.default_rng(0).permutation(np.repeat([f"patient {k}" for k in range(20)], 3))
    write_table(workspace, table().assign(who=who))
    write_params(workspace, **{"data.split": {"group": "who"}})
    kept = []
    for rows in (65_536, 7):
        monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", rows)
        prepare.main()
        kept.append({path.name: path.read_bytes() for path in Path("data/prepared").glob("*_groups.npy")})
    assert kept[0] == kept[1]
    for name in SPLITS:
        groups = load_groups(name)
        assert groups is not None
        assert groups.dtype == np.int32
        assert np.array_equal(groups, pd.factorize(who[load_index(name)])[0])
    write_params(workspace)
    write_table(workspace)
    prepare.main()
    assert load_groups("test") is None
    assert not list(Path("data/prepared").glob("*groups*"))


def test_prepare_takes_the_files_of_the_splits_and_counts_repeated_rows(workspace: Path) -> None:
    frame = table(rows=60)
    frame.iloc[50:53] = frame.iloc[:3].to_numpy()
    for name, rows in (("train", frame[:40]), ("valid", frame[40:50]), ("test", frame[50:])):
        write_table(workspace, rows, f"{name}.csv")
    files = {name: f"{name}.csv" for name in SPLITS}
    write_params(workspace, **{"data.path": "data/raw", "data.files": files})
    prepare.main()
    assert load_schema().rows == {"train": 40, "valid": 10, "test": 10}
    assert load_index("test").tolist() == list(range(50, 60))
    (note,) = load_schema().notes
    assert note.startswith("3 of 10 test rows are also among the training rows, value for value")
