"""The points of a sweep: which options of `workloom run` each of them sets.

    --vary "concurrency=1,2,4"     values                     rate=1:8:1            1, 2, ... 8
                                                              concurrency=1:64:x2   1, 2, 4, ... 64
    --vary "ttl=,60"               a value left empty: the option is not given at that point

Several --vary make a grid (every combination, the last one moves fastest) or, zipped, go side by side.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import product

from msgspec import Struct

from workloom.errors import UsageError

MOST = 10_000
"""Points of one sweep, at most."""
LONGEST_NAME = 120
"""Characters of a directory's name."""
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER}):(x?)({_NUMBER})")


class Setting(Struct, frozen=True):
    """An option (without its dashes) and what it is given: nothing, one word, or several where it may be repeated."""

    option: str
    values: tuple[str, ...] = ()

    def say(self) -> str:
        return f"{self.option}={' '.join(self.values)}" if self.values else f"{self.option} not given"

    @property
    def brief(self) -> str:
        """For a name: of a path or a repository only the last piece."""
        pieces = [value if "://" in value else value.rstrip("/").rpartition("/")[2] for value in self.values]
        return f"{self.option}-{'-'.join(pieces) or 'none'}"


class Point(Struct, frozen=True):
    """One set of options, run under one seed (None: the one that the options say)."""

    settings: tuple[Setting, ...]
    seed: int | None = None

    def say(self) -> str:
        """`concurrency=4, engine=x, seed 1`."""
        return ", ".join([each.say() for each in self.settings] + ([] if self.seed is None else [f"seed {self.seed}"]))


class Vary(Struct, frozen=True):
    """An option and all that it is set to."""

    option: str
    settings: tuple[Setting, ...]


def vary(text: str) -> Vary:
    """Read one --vary. Raises UsageError."""
    option, equals, said = text.partition("=")
    option = option.strip().removeprefix("--")
    if not equals or not option:
        raise UsageError(
            "what is varied is OPTION=VALUES", where="--vary", expected="concurrency=1,2,4 or rate=1:8:1", found=text
        )
    values = [value for word in said.split(",") for value in _expanded(word.strip(), text)]
    return Vary(option, tuple(Setting(option, (value,) if value else ()) for value in values))


def _expanded(word: str, text: str) -> Iterator[str]:
    """A word, or all numbers of a range. Decimal, so that 0.1:0.5:0.1 is what one reads."""
    match = _RANGE.fullmatch(word)
    if match is None:
        yield word
        return
    first, last, step = Decimal(match[1]), Decimal(match[2]), Decimal(match[4])
    geometric = match[3] == "x"
    if first > last or (first <= 0 or step <= 1 if geometric else step <= 0):
        raise UsageError(
            "a range goes up",
            where="--vary",
            expected="LOW:HIGH:STEP with a step above 0, or LOW:HIGH:xFACTOR with LOW above 0 and a factor above 1",
            found=text,
        )
    count = 0
    while first <= last:
        if count == MOST:
            raise UsageError("a range is too long", where="--vary", expected=f"at most {MOST:,} values", found=text)
        yield plain(first)
        first = first * step if geometric else first + step
        count += 1


def plain(number: Decimal) -> str:
    """As one writes it: 8, not 8.0 or 8E+0."""
    said = f"{number:f}"
    return said.rstrip("0").rstrip(".") if "." in said else said


def grid(varied: Sequence[Vary]) -> list[Point]:
    """Every combination; the last option moves fastest. Raises UsageError where that is too much."""
    count = 1
    for each in varied:
        count *= len(each.settings)
    if count > MOST:
        found = " x ".join(f"{len(each.settings)} of {each.option}" for each in varied)
        raise UsageError("the grid is too large", where="--vary", expected=f"at most {MOST:,} points", found=found)
    return [Point(settings) for settings in product(*(each.settings for each in varied))]


def zipped(varied: Sequence[Vary]) -> list[Point]:
    """The first values together, the second ones together, and so on. Raises UsageError for unequal numbers."""
    if len({len(each.settings) for each in varied}) > 1:
        found = ", ".join(f"{len(each.settings)} of {each.option}" for each in varied)
        raise UsageError("what is zipped has equally many values", where="--zip", found=found)
    return [Point(settings) for settings in zip(*(each.settings for each in varied), strict=True)]


def repeated(points: Iterable[Point], seeds: Sequence[int]) -> list[Point]:
    """Each point under each of these seeds."""
    return [Point(point.settings, seed) for point in points for seed in seeds]


def alike(points: Iterable[Point]) -> list[Point]:
    """Points that are there more than once, each once."""
    return [point for point, count in Counter(points).items() if count > 1]


def names(points: Sequence[Point]) -> list[str]:
    """A readable directory name for each, no two alike: `concurrency-4,engine-x,seed-0`.

    A name depends on its point alone unless it is cut or could be another's: then a code of the point ends it.
    """
    plain_names = [_name(point) for point in points]
    met = Counter(name.lower() for name in plain_names)
    return [
        name if met[name.lower()] == 1 and len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_code(point)}"
        for name, point in zip(plain_names, points, strict=True)
    ]


def _name(point: Point) -> str:
    pieces = [re.sub(r"[^A-Za-z0-9._@+-]+", "-", each.brief).strip("-.") for each in point.settings]
    return ",".join(pieces + ([] if point.seed is None else [f"seed-{point.seed}"]))


def _code(point: Point) -> str:
    return hashlib.sha256(point.say().encode()).hexdigest()[:8]
