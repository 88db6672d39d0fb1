"""What changed between the configurations of two runs, and what makes the comparison unfair."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from workloom.metrics.tool import NOT_RESET
from workloom.store.manifest import Manifest

ABOUT = ("workloom", "backend", "workload", "load", "seed", "left_out", "host")
"""Fields of the manifest that are compared besides the configuration and the command line."""
PROSE = ("source", "not_identified", "error")
"""Parts of an engine's profile that say where it comes from; they change no run."""
OPTIONS_OF_OUTPUT = ("-o", "--out")


class Change(Struct, frozen=True):
    """A setting that is not the same. None: not there."""

    name: str
    a: str | None
    b: str | None


def changes(a: Manifest, b: Manifest) -> list[Change]:
    """Every setting that differs, by its path (`engine.kv_tokens`), the command line first."""
    one, other = dict(_settings(a)), dict(_settings(b))
    names = [*one, *(name for name in other if name not in one)]
    differ = [Change(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]
    said = _options(a.argv), _options(b.argv)
    if said[0] != said[1]:
        left = " ".join(word for word in said[0] if word not in said[1])
        right = " ".join(word for word in said[1] if word not in said[0])
        differ.insert(0, Change("command line", left or None, right or None))
    return differ


def folded(found: list[Change], most: int = 4) -> list[Change]:
    """The same with fewer lines: a part that only one of the two has, and one of which more than `most` settings
    differ, is one line."""
    groups: dict[str, list[Change]] = {}
    for change in found:
        whole = change.name.partition(".")[0]
        mine = [other for other in found if other.name.partition(".")[0] == whole]
        one_sided = all(other.a is None for other in mine) or all(other.b is None for other in mine)
        groups.setdefault(whole if one_sided else change.name.rpartition(".")[0] or change.name, []).append(change)
    out = []
    for name, group in groups.items():
        named = [change for change in group if change.name.rpartition(".")[2] == "name"]
        rest = [change for change in group if change not in named]
        out += named
        if len(rest) <= (0 if named and len(rest) > 1 else most):
            out += rest
        else:
            out.append(Change(f"{name}.*", _many([c.a for c in rest]), _many([c.b for c in rest])))
    return out


def _many(values: list[str | None]) -> str | None:
    there = sum(value is not None for value in values)
    return f"{there:,} settings" if there else None


def _settings(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name in ABOUT:
        yield from _flat(name, getattr(manifest, name))
    for name, value in manifest.config.items():
        if name != "recipe" or not isinstance(value, Mapping):
            yield from _flat(name, value)
            continue
        bare = {key: part for key, part in value.items() if key not in ("seed", "version")}
        trace = bare.get("trace")
        if isinstance(trace, Mapping):
            bare["trace"] = {key: part for key, part in trace.items() if key != "paths"}
        yield from _flat("recipe", bare)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not (name == "engine" and key in PROSE):
                yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for i, part in enumerate(value):
            yield from _flat(f"{name}[{i}]", part)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, default=str)


def _options(argv: list[str]) -> list[str]:
    """The words of a command line but the program and where it wrote to; an option stands with its value."""
    words: list[str] = []
    rest = iter(argv[1:])
    for word in rest:
        if word in OPTIONS_OF_OUTPUT:
            next(rest, None)
        elif word.partition("=")[0] not in OPTIONS_OF_OUTPUT:
            value_of = words and words[-1].startswith("-") and " " not in words[-1] and not word.startswith("-")
            if value_of:
                words[-1] += f" {word}"
            else:
                words.append(word)
    return words


def same_workload(a: Manifest, b: Manifest) -> bool:
    """Whether the sessions are the same, or are made of one workload: with another seed it makes other sessions."""
    one, other = (_recipe(manifest).get("trace") or {} for manifest in (a, b))
    if one.get("content_hash") == other.get("content_hash"):
        return True
    made = [(trace.get("paths"), trace.get("generate")) for trace in (one, other)]
    return made[0] == made[1] and one.get("generate") is not None and a.seed != b.seed


def unfair(a: Manifest, b: Manifest) -> list[str]:
    """What a reader must know before believing a difference, the gravest first."""
    return [words for words in _warnings(a, b) if words]


def _warnings(a: Manifest, b: Manifest) -> Iterator[str]:
    one, other = _recipe(a), _recipe(b)
    if not same_workload(a, b):
        yield f"other workloads: {a.workload or '?'} against {b.workload or '?'}"
    if a.backend != b.backend:
        said = {"simulated": "simulated", "http": "live"}
        yield f"one is {said[a.backend]} and the other {said[b.backend]}: what differs is the engine's model too"
    if one.get("load") != other.get("load"):
        yield f"other load: {a.load or '?'} against {b.load or '?'}"
    for name, what in SHAPES.items():
        if one.get(name) != other.get(name):
            yield f"{what} differ: {_short(one.get(name))} against {_short(other.get(name))}"
    options = [manifest.config.get("options") for manifest in (a, b)]
    if options[0] != options[1]:
        yield "calls were treated differently (time-out, drain, history, what follows an error)"
    for letter, manifest in (("A", a), ("B", b)):
        if manifest.status != "finished":
            yield f"{letter} did not come to its end: {manifest.status}"
        if manifest.torn_bytes:
            yield f"{letter} lost {manifest.torn_bytes:,} bytes of records"
    reset = [any(note.startswith(NOT_RESET) for note in manifest.notes) for manifest in (a, b)]
    asked = [bool((m.config.get("server") or {}).get("reset_cache")) for m in (a, b)]
    if any(reset):
        yield f"{' and '.join(x for x, warm in zip('AB', reset, strict=True) if warm)} began on a cache left warm"
    elif asked[0] != asked[1] and a.backend == b.backend == "http":
        yield f"only {'A' if asked[0] else 'B'} emptied the server's prefix cache before it began"
    if a.workloom != b.workloom:
        yield f"other versions of workloom: {a.workloom} against {b.workloom}"
    if a.host != b.host and "http" in (a.backend, b.backend):
        yield "the load came from other hosts"


SHAPES = {
    "limits": "the limits of the runs",
    "waits": "the caps on waits",
    "context": "the longest contexts",
    "start": "where sessions begin",
    "warmup": "the warm-ups",
    "isolation": "what sessions share",
    "share_scaffold": "whether scaffolds are shared",
}
"""Parts of a plan that change what is measured."""


def _recipe(manifest: Manifest) -> dict[str, Any]:
    recipe = manifest.config.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
