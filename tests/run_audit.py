"""An auditor of a whole simulated run: every figure a user sees, worked out again from its event log alone.

The log (`workloom run ... --event-log FILE`) says what each engine was handed and did. From it `engine_audit.Audit`
derives when each token came, checking on the way that steps take what the profile says; from those instants come the
figures of `Figures`, by their definitions in docs/run-directory.md. Nothing of workloom.metrics is used, and of the run
itself only what no engine can know: the measured window, and when the samples of server.parquet were taken.

Not for disaggregated fleets, nor for runs with calls that failed.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from engine_audit import Audit, Audited

from workloom.engine.events import Admitted, Ended, Event, Evicted, Preempted, Queued, Ran
from workloom.engine.profile import Profile
from workloom.prefix import Key

PS, NS = 1000, 10**9
KINDS = {"queued": Queued, "admitted": Admitted, "ran": Ran, "preempted": Preempted, "evicted": Evicted, "ended": Ended}
LEVELS = (50, 75, 90, 95, 99)


def ns(at_ps: int) -> int:
    """Picoseconds as the nanosecond they are told at."""
    return -(-at_ps // PS)


class Occupancy:
    """Calls running and waiting on an engine, from one change to the next."""

    def __init__(self) -> None:
        self.at_ps = [0]
        self.levels = [(0, 0)]
        self._running: set[str] = set()
        self._waiting: set[str] = set()

    def change(self, at_ps: int, call: str, *, running: bool = False, waiting: bool = False) -> None:
        for calls, there in ((self._running, running), (self._waiting, waiting)):
            (calls.add if there else calls.discard)(call)
        level = len(self._running), len(self._waiting)
        if at_ps == self.at_ps[-1]:
            self.levels[-1] = level
        else:
            assert at_ps > self.at_ps[-1], "events are told in order"
            self.at_ps.append(at_ps)
            self.levels.append(level)

    def at(self, at_ps: int) -> tuple[int, int]:
        """(running, waiting) at an instant."""
        return self.levels[bisect_right(self.at_ps, at_ps) - 1]

    def means(self, begin_ps: int, end_ps: int) -> tuple[float, float]:
        """Over time."""
        edges = [begin_ps, *(at for at in self.at_ps if begin_ps < at < end_ps), end_ps]
        held = [(then - now, *self.at(now)) for now, then in pairwise(edges)]
        span = end_ps - begin_ps
        return sum(d * running for d, running, _ in held) / span, sum(d * waiting for d, _, waiting in held) / span


class Book:
    """What one replica did."""

    def __init__(self, profile: Profile, *, prefix_cache: bool) -> None:
        self.profile = profile
        self.audit = Audit(profile, prefix_cache=prefix_cache)
        self.occupancy = Occupancy()
        self.admitted: list[tuple[int, int, int]] = []
        """(at, prompt tokens, of these found on the GPU) of first admissions."""
        self.preempted_ps: list[int] = []
        self._seen: set[str] = set()
        """Calls that were ever admitted."""

    def hear(self, event: Event) -> None:
        """The engine's events. A call that left the front end in the middle of a step waits from the end of it on."""
        audit, levels = self.audit, self.occupancy
        audit.hear(event)
        match event:
            case Queued():
                levels.change(max(event.at_ps, audit.now_ps, levels.at_ps[-1]), event.call, waiting=True)
            case Admitted():
                levels.change(event.at_ps, event.call, running=True)
                if event.call not in self._seen:
                    prompt = audit.calls[event.call].prompt.tokens
                    read = sum(tokens for _, tokens in event.fetched)
                    self.admitted.append((event.at_ps, prompt, event.cached_tokens - read))
                    self._seen.add(event.call)
            case Preempted():
                levels.change(event.at_ps, event.call, waiting=True)
                self.preempted_ps.append(event.at_ps)
            case Ended():
                levels.change(max(event.at_ps, levels.at_ps[-1]), event.call)


class CallFigures:
    """One call: instants in nanoseconds."""

    def __init__(self, call: Audited, profile: Profile) -> None:
        front, came = profile.front_end, call.came_ps
        assert call.ended is not None and call.ended.status == "done", "only runs in which all went well"
        assert len(came) == call.made == call.outputs
        self.instance = call.name.partition("/")[0]
        self.sent_ns = call.submitted_ps // PS
        self.came_ps = [min([came[0] + front.first_token_ps, *came[1:2]]), *came[1:]]
        self.first_ns, self.last_ns = ns(self.came_ps[0]), ns(self.came_ps[-1])
        self.done_ns = ns(self.came_ps[-1] + front.end_ps)
        self.prompt, self.cached, self.output = call.prompt.tokens, call.cached or 0, call.made


def read(log: Path) -> list[Book]:
    """The books of every replica."""
    with log.open() as lines:
        return keep(json.loads(line) for line in lines)


def keep(lines: Iterable[dict[str, Any]]) -> list[Book]:
    """The same of lines that were read; the first is the head."""
    lines = iter(lines)
    head = next(lines)
    assert head["workloom_events"] == 1
    books: dict[str, Book] = {}
    for line in lines:
        what = dict(line)
        replica, kind = what.pop("replica"), what.pop("event")
        if kind == "began":
            books[replica] = Book(msgspec.convert(what["profile"], Profile), prefix_cache=head["prefix_cache"])
        elif kind == "submitted":
            prompt = Key(tuple(what["ids"]), tuple(what["ends"]))
            books[replica].audit.submit(what["at_ns"], what["call"], prompt, what["answer"], what["output_tokens"])
        else:
            books[replica].hear(_event(kind, what))
    for book in books.values():
        book.audit._come(None)
        assert all(call.ended for call in book.audit.calls.values()), "every call ends"
        assert book.audit.evicted == book.audit.blocks.evicted or not book.audit.exact, "evictions are what they were"
    return [books[name] for name in sorted(books)]


def _event(kind: str, line: dict[str, Any]) -> Event:
    made: Event = msgspec.convert([line[name] for name in KINDS[kind]._fields], KINDS[kind])
    return made


class Figures:
    """A run's figures over a window [start, end) of its time; calls belong to it by when they were sent."""

    def __init__(self, books: list[Book], start_ns: int, end_ns: int) -> None:
        self.books, self.start_ns, self.end_ns = books, start_ns, end_ns
        self.calls = [CallFigures(call, book.profile) for book in books for call in book.audit.calls.values()]
        self.due = [call for call in self.calls if self.holds(call.sent_ns)]

    def holds(self, at_ns: int) -> bool:
        return self.start_ns <= at_ns < self.end_ns

    @cached_property
    def at_the_edges(self) -> int:
        """Tokens that came within a nanosecond of an edge of the window, which is as exact as chunks are kept."""
        edges = self.start_ns * PS, self.end_ns * PS
        return sum(min(abs(at - edge) for edge in edges) < 2 * PS for call in self.calls for at in call.came_ps)

    @cached_property
    def all(self) -> dict[str, float]:
        """Every figure under the path it has in summary.json."""
        out: dict[str, float] = {
            "calls.recorded": len(self.calls),
            "calls.due": len(self.due),
            "calls.ok": len(self.due),
            "calls.ended": sum(self.holds(call.done_ns) for call in self.calls),
        }
        for name, values in self._latencies():
            out |= {f"latency.{name}.n": len(values), f"latency.{name}.mean": math.fsum(values) / len(values)}
            out |= {f"latency.{name}.p{level}": quantile(values, level) for level in LEVELS}
        return out | dict(self._totals()) | dict(self._sides())

    def _latencies(self) -> Iterator[tuple[str, list[float]]]:
        due = self.due
        ttft = [(call.first_ns - call.sent_ns) / NS for call in due]
        e2e = [(call.last_ns - call.sent_ns) / NS for call in due]
        yield "ttft_s", ttft
        yield "ttft_from_due_s", ttft
        yield "e2e_s", e2e
        yield "e2e_from_due_s", e2e
        yield "tbc_s", [(then - now) / 1e12 for call in due for now, then in pairwise(call.came_ps)]
        yield "tpot_s", [(c.last_ns - c.first_ns) / NS / (c.output - 1) for c in due if c.output > 1]
        yield "makespan_s", [(end - begin) / NS for begin, end in self._sessions() if self.holds(begin)]

    def _sessions(self) -> list[tuple[int, int]]:
        """When sessions began and ended."""
        spans: dict[str, tuple[int, int]] = {}
        for call in self.calls:
            begin, end = spans.get(call.instance, (call.sent_ns, 0))
            spans[call.instance] = min(begin, call.sent_ns), max(end, call.done_ns)
        return list(spans.values())

    def _totals(self) -> Iterator[tuple[str, float]]:
        due, calls = self.due, self.calls
        yield "tokens.prompt", sum(call.prompt for call in due)
        yield "tokens.cached", sum(call.cached for call in due)
        yield "tokens.output", sum(call.output for call in due)
        yield "hits.reported", sum(call.cached for call in due) / sum(call.prompt for call in due)
        amounts = {
            "output_tokens": sum(self.holds(ns(at_ps)) for call in calls for at_ps in call.came_ps),
            "prompt_tokens": sum(call.prompt for call in calls if self.holds(call.first_ns)),
            "calls": sum(self.holds(call.done_ns) for call in calls),
            "sessions": sum(self.holds(end) for _, end in self._sessions()),
        }
        seconds = (self.end_ns - self.start_ns) / NS
        for name, amount in amounts.items():
            yield f"throughput.{name}", amount
            yield f"throughput.{name}_per_s", amount / seconds

    def _sides(self) -> Iterator[tuple[str, float]]:
        """What was going on at once, and what the engines' counters grew by in the window."""
        span = self.end_ns - self.start_ns
        held = [max(0, min(c.done_ns, self.end_ns) - max(c.sent_ns, self.start_ns)) for c in self.calls]
        yield "concurrency.calls_mean", sum(held) / span
        admitted = [one for book in self.books for one in book.admitted if self._counted(one[0])]
        if queries := sum(prompt for _, prompt, _ in admitted):
            yield "engine_hit_rate", sum(cached for _, _, cached in admitted) / queries
        preempted = [at_ps for book in self.books for at_ps in book.preempted_ps if self._counted(at_ps)]
        yield "server.growth.preemptions", len(preempted)

    def _counted(self, at_ps: int) -> bool:
        """Whether a counter that is read at both edges of the window grows by what happened then."""
        return self.start_ns * PS < at_ps <= self.end_ns * PS or at_ps == self.start_ns == 0

    def occupancy_means(self) -> tuple[float, float]:
        """Calls running and waiting, over time, on all replicas."""
        edges = self.start_ns * PS, self.end_ns * PS
        means = [book.occupancy.means(*edges) for book in self.books]
        return sum(running for running, _ in means), sum(waiting for _, waiting in means)


def quantile(values: list[float], percent: int) -> float:
    """Linear between ranks."""
    ranked = sorted(values)
    rank = Fraction(percent * (len(ranked) - 1), 100)
    low = int(rank)
    part = float(rank - low)
    return ranked[low] + (part * (ranked[low + 1] - ranked[low]) if part else 0.0)


def compare(figures: Figures, summary: dict[str, Any]) -> None:
    """Every figure stands in the summary as it was worked out; instants of chunks are kept to a nanosecond."""
    for path, value in figures.all.items():
        said = at(summary, path)
        slack = 1e-9 * abs(value)
        if path.startswith("latency.") and not path.endswith(".n"):
            slack = 2e-9 + 1e-9 * value
        elif path.startswith("throughput.output_tokens"):
            tokens = figures.at_the_edges
            slack += tokens if path == "throughput.output_tokens" else tokens * NS / (figures.end_ns - figures.start_ns)
        assert isinstance(said, int | float) and abs(said - value) <= slack, f"{path}: {said}, by the events {value}"


def at(summary: dict[str, Any], path: str) -> Any:
    """The figure that stands there."""
    found: Any = summary
    for step in path.split("."):
        found = found[step]
    return found


def compare_samples(books: list[Book], samples: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Every sample of the queues is what the events say of that instant; and so is what the summary makes of them."""
    names = {"vllm:num_requests_running": 0, "vllm:num_requests_waiting": 1}
    start_ns, end_ns = summary["window"]["start_ns"], summary["window"]["end_ns"]
    for name, which in names.items():
        total = 0.0
        for number, book in enumerate(books):
            mine = [s for s in samples if s["name"] == name and (s["replica"] or "0") == str(number)]
            assert mine
            for sample in mine:
                level = book.occupancy.at(sample["at_ns"] * PS)[which]
                assert sample["value"] == level, (
                    f"{name} at {sample['at_ns']}: {sample['value']}, by the events {level}"
                )
            edges = [*(sample["at_ns"] for sample in mine), end_ns]
            for sample, (begin, end) in zip(mine, pairwise(edges), strict=True):
                total += sample["value"] * max(0, min(end, end_ns) - max(begin, start_ns))
        gauge = "running" if which == 0 else "waiting"
        said, value = summary["server"]["gauges"][gauge]["mean"], total / (end_ns - start_ns)
        assert abs(said - value) <= 1e-9 * max(value, 1), f"{gauge}: {said}, by the events {value}"
