"""The points of a sweep: what is varied, what comes out, what they are called, which of them nothing beats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workloom.answers.sweep.definition import Defined, Definition, differences, shown
from workloom.answers.sweep.listing import listed
from workloom.answers.sweep.pareto import front, outline
from workloom.answers.sweep.points import (
    LONGEST_NAME,
    MOST,
    Point,
    Setting,
    Vary,
    alike,
    grid,
    names,
    repeated,
    vary,
    zipped,
)
from workloom.errors import UsageError

words = st.text(st.characters(codec="ascii", exclude_characters=",\n\r\x00"), min_size=1, max_size=12)


@st.composite
def several(draw: st.DrawFn, equally: bool = False) -> list[Vary]:
    """Options with different values each."""
    options = draw(st.lists(st.sampled_from(["rate", "engine", "ttl", "seed"]), min_size=1, max_size=3, unique=True))
    count = draw(st.integers(1, 5)) if equally else None
    made = []
    for option in options:
        least, most = (1, 4) if count is None else (count, count)
        values = draw(st.lists(words, min_size=least, max_size=most, unique=True))
        made.append(Vary(option, tuple(Setting(option, (value,)) for value in values)))
    return made


def values(text: str) -> list[str]:
    return [" ".join(setting.values) for setting in vary(text).settings]


# -- what is varied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concurrency=1,2,4", "1 2 4"),
        ("--concurrency = 1, 2", "1 2"),
        ("rate=1:8:1", "1 2 3 4 5 6 7 8"),
        ("rate=0.1:0.5:0.1", "0.1 0.2 0.3 0.4 0.5"),
        ("rate=1:2:0.4", "1 1.4 1.8"),
        ("concurrency=1:64:x2", "1 2 4 8 16 32 64"),
        ("rate=1:5:x1.5", "1 1.5 2.25 3.375"),
        ("concurrency=1,10:30:10,100", "1 10 20 30 100"),
        ("start=0.1-0.5:index", "0.1-0.5:index"),
        ("arrival=poisson,gamma:2", "poisson gamma:2"),
        ("url=http://127.0.0.1:80/v1", "http://127.0.0.1:80/v1"),
        ("body=temperature=0.5,top_p=1", "temperature=0.5 top_p=1"),
    ],
)
def test_values_and_ranges_say_what_one_reads(text: str, expected: str) -> None:
    assert values(text) == expected.split()


def test_an_empty_value_leaves_the_option_out() -> None:
    assert vary("ttl=,60").settings == (Setting("ttl"), Setting("ttl", ("60",)))


@pytest.mark.parametrize("text", ["concurrency", "=1,2", "rate=8:1:1", "rate=1:8:0", "rate=0:8:x2", "rate=1:8:x1"])
def test_what_is_no_range_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        vary(text)


def test_too_many_points_are_refused_before_they_are_made() -> None:
    with pytest.raises(UsageError, match="10,000"):
        vary("rate=1:1000000000000:1")
    hundred = [vary(f"{option}=1:101:1") for option in ("a", "b")]
    with pytest.raises(UsageError, match="101 of a x 101 of b"):
        grid(hundred)
    assert len(grid([vary("a=1:100:1"), vary("b=1:100:1")])) == MOST


# -- grids, zips, seeds


@given(several())
def test_a_grid_has_every_combination_once_and_the_last_option_moves_fastest(varied: list[Vary]) -> None:
    points = grid(varied)
    count = 1
    for each in varied:
        count *= len(each.settings)
    assert len(points) == count == len(set(points))
    assert alike(points) == []
    last = varied[-1]
    for i, point in enumerate(points):
        assert [setting.option for setting in point.settings] == [each.option for each in varied]
        assert point.settings[-1] == last.settings[i % len(last.settings)]


@given(several(equally=True))
def test_a_zip_goes_side_by_side(varied: list[Vary]) -> None:
    points = zipped(varied)
    assert len(points) == len(varied[0].settings)
    for i, point in enumerate(points):
        assert point.settings == tuple(each.settings[i] for each in varied)


@given(several(equally=False))
def test_a_zip_of_unequal_numbers_is_refused(varied: list[Vary]) -> None:
    assume(len({len(each.settings) for each in varied}) > 1)
    with pytest.raises(UsageError, match="equally many"):
        zipped(varied)


@given(several(), st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))
def test_every_point_comes_under_every_seed(varied: list[Vary], seeds: list[int]) -> None:
    points = grid(varied)
    assert len(set(repeated(points, seeds))) == len(points) * len(seeds)
    assert {each.settings for each in repeated(points, seeds)} == {each.settings for each in points}


# -- names


@given(several(), st.lists(st.integers(0, 99), max_size=2, unique=True))
def test_names_differ_also_where_case_does_not_count_and_are_names_of_folders(
    varied: list[Vary], seeds: list[int]
) -> None:
    points = repeated(grid(varied), seeds) if seeds else grid(varied)
    made = names(points)
    assert len({name.lower() for name in made}) == len(points)
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+,-]*", name) and len(name) <= LONGEST_NAME


def test_a_name_says_what_a_point_sets() -> None:
    point = Point((Setting("concurrency", ("4",)), Setting("engine", ("my/profiles/a b.yaml",))), 0)
    assert names([point]) == ["concurrency-4,engine-a-b.yaml,seed-0"]
    assert point.say() == "concurrency=4, engine=my/profiles/a b.yaml, seed 0"


def test_what_is_secret_is_in_no_name() -> None:
    point = shown(Point((Setting("header", ("Authorization: Bearer hunter22",)), Setting("rate", ("1",)))))
    assert "hunter22" not in point.say() + names([point])[0]
    assert point.settings[1] == Setting("rate", ("1",))


# -- lists


def test_a_list_is_the_same_in_yaml_and_in_lines_of_json(tmp_path: Path) -> None:
    entries = [
        {"concurrency": 4, "metrics": "off", "rate": None, "url": ["http://a/v1", "http://b/v1"]},
        {"share_scaffold": True, "--ttl": 0.001},
    ]
    (tmp_path / "points.jsonl").write_text("\n".join(map(json.dumps, entries)))
    (tmp_path / "points.yaml").write_text(
        "- {concurrency: 4, metrics: off, rate: null, url: [http://a/v1, http://b/v1]}\n"
        "- share_scaffold: true\n  --ttl: 0.001\n"
    )
    expected = [
        Point(
            (
                Setting("concurrency", ("4",)),
                Setting("metrics", ("off",)),
                Setting("rate"),
                Setting("url", ("http://a/v1", "http://b/v1")),
            )
        ),
        Point((Setting("share-scaffold", ("true",)), Setting("ttl", ("0.001",)))),
    ]
    assert listed(tmp_path / "points.jsonl") == listed(tmp_path / "points.yaml") == expected


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.yaml", "- {rate: {a: 1}}\n- 7\n- {rate: 1}\n", "entry 1: rate.*entry 2: '7'"),
        ("p.yaml", "", "entry 1"),
        ("p.yaml", "[]", "0 entries"),
        ("p.yaml", "- {rate: 1", "no YAML"),
        ("p.jsonl", '{"rate": 1}\n{"rate"', "p.jsonl:2"),
        ("gone.yaml", None, "cannot be read"),
    ],
)
def test_every_entry_that_is_no_point_is_told(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"(?s){says}"):
        listed(tmp_path / name)


# -- another sweep in the same directory


def defined(*values: str, base: str = "--engine=a", workload: str = "w") -> Definition:
    points = tuple(
        Defined(f"rate-{value}", (Setting("rate", (value,)),), 0, (f"--rate={value}", "--seed=0")) for value in values
    )
    return Definition((workload,), (base,), points)


def test_points_may_be_added_and_nothing_else() -> None:
    kept = defined("1", "2")
    assert differences(kept, kept) == differences(kept, defined("2", "1", "4")) == []
    assert differences(kept, defined("2")) == ["no longer asked for: rate-1"]
    (told,) = differences(kept, defined("1", "2", base="--engine=b"))
    assert "--engine=a there, --engine=b now" in told
    assert len(differences(kept, defined("3", base="", workload="v"))) == 3


# -- the front

numbers = st.integers(-3, 3).map(float)
pairs = st.lists(st.tuples(numbers, numbers), max_size=12)
directions = st.tuples(st.booleans(), st.booleans())


def worse(a: tuple[float, float], b: tuple[float, float], higher: tuple[bool, bool]) -> tuple[bool, bool]:
    """Of each figure whether a is worse than b."""
    return tuple(p < q if up else p > q for p, q, up in zip(a, b, higher, strict=True))  # type: ignore[return-value]


@given(pairs, directions)
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]], higher: tuple[bool, bool]) -> None:
    for point, on in zip(points, front(points, higher), strict=True):
        beaten = any(any(worse(point, o, higher)) and not any(worse(o, point, higher)) for o in points)
        assert on != beaten


@given(pairs, directions)
def test_the_edge_goes_through_the_front_and_no_point_lies_beyond_it(
    points: list[tuple[float, float]], higher: tuple[bool, bool]
) -> None:
    edge = outline(points, higher)
    assert {p for p, on in zip(points, front(points, higher), strict=True) if on} <= set(edge)
    assert edge == sorted(edge, key=lambda corner: corner[0])
    for corner in edge:
        assert any(not any(worse(point, corner, higher)) for point in points), "it can be had"
        assert not any(all(worse(corner, point, higher)) for point in points), "nothing better in both can"
