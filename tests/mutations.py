"""Damage to files as disks, editors, half-written logs and hostile hands do it: seeded, so every case comes again."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.){0,200}"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null')
ODD = [
    b"null", b"true", b"-1", b"0", b"1", b"1e308", b"-1e308", b"1e999", b"NaN", b"1000000000000000000", b"2.5",
    b'""', b'"x"', b'"\xed\xa0\x80"', b'"9999-12-31T23:59:59Z"', b'"0001-01-01T00:00:00Z"', b'"1970-01-01"',
    b"[]", b"{}",
    b"[[[[]]]]", b'{"a":{"b":[null]}}', b'"\\u0000"', b"99999999999999999999999999", b'"-1"', b'"NaN"', b"[1,2,3]",
]  # fmt: skip
WINDOW_BYTES = 150_000
"""Of a larger file of lines a mutation gets a random part of this size."""


def mutate(data: bytes, random: Random) -> bytes:
    """One to three of the damages below."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(DAMAGES)(data, random)
    return data


def window(data: bytes, random: Random) -> bytes:
    """The first line of a large file of lines and a random run of the others; another file as it is."""
    lines = data.splitlines(keepends=True)
    if len(data) <= WINDOW_BYTES or len(lines) < 2 or not lines[0].rstrip().endswith(b"}"):
        return data
    first = random.randrange(1, len(lines))
    out, size = [lines[0]], len(lines[0])
    for line in lines[first:]:
        size += len(line)
        if size > WINDOW_BYTES:
            break
        out.append(line)
    return b"".join(out)


def _token(data: bytes, random: Random) -> re.Match[bytes] | None:
    """A string, number or word of the data, from a random place on."""
    return TOKEN.search(data, random.randrange(len(data) + 1)) or TOKEN.search(data)


def replace_value(data: bytes, random: Random) -> bytes:
    found = _token(data, random)
    return data if found is None else data[: found.start()] + random.choice(ODD) + data[found.end() :]


def copy_value(data: bytes, random: Random) -> bytes:
    """One value stands where another stood: ids that repeat, links that go in circles."""
    one, other = _token(data, random), _token(data, random)
    return data if one is None or other is None else data[: one.start()] + other[0] + data[one.end() :]


def drop_key(data: bytes, random: Random) -> bytes:
    found = re.compile(rb'"\w{1,40}"\s*:\s*(?:"[^"\n]*"|[\d.eE+-]+|true|false|null|\[\]|\{\})\s*,?').search(
        data, random.randrange(len(data) + 1)
    )
    return data if found is None else data[: found.start()] + data[found.end() :]


def flip_bytes(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if out:
            out[random.randrange(len(out))] = random.randrange(256)
    return bytes(out)


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def cut_out(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 2, 10, 100, 1000)) :]


def double(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    end = start + random.choice((1, 10, 100, 1000))
    return data[:end] + data[start:end] + data[end:]


def _lines(change: Callable[[list[bytes], Random], None]) -> Callable[[bytes, Random], bytes]:
    def damage(data: bytes, random: Random) -> bytes:
        lines = data.splitlines(keepends=True)
        if len(lines) > 1:
            change(lines, random)
        return b"".join(lines)

    return damage


def _swap(lines: list[bytes], random: Random) -> None:
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _delete(lines: list[bytes], random: Random) -> None:
    del lines[random.randrange(len(lines))]


def _repeat(lines: list[bytes], random: Random) -> None:
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))


def _junk(lines: list[bytes], random: Random) -> None:
    junk = (
        b"\n",
        b"\0\0\0\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'"x"\n',
        b"\xff\xfe\n",
        b"[" * 5000 + b"\n",
        b"{" * 9 + b"\n",
    )
    lines.insert(random.randrange(len(lines) + 1), random.choice(junk))


DAMAGES: list[Callable[[bytes, Random], bytes]] = [
    replace_value, replace_value, replace_value, replace_value, copy_value, copy_value, drop_key, drop_key,
    flip_bytes, cut, cut_out, double, _lines(_swap), _lines(_delete), _lines(_repeat), _lines(_junk),
]  # fmt: skip
