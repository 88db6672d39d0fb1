"""Where a probe's runs happen: sessions in, rows out, everything kept in one folder.

FOLDER/NAME.jsonl    the sessions of a run, a trace like any other
FOLDER/NAME/         the run: `workloom show` opens it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from workloom import seeds
from workloom.answers.trial import kept, require_server
from workloom.clock import host
from workloom.drive.driver import Options
from workloom.errors import Hopeless
from workloom.execute import Live, Simulated
from workloom.metrics import calls as per_call
from workloom.metrics.frame import OK, Bools
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.plan import Closed, Context, Limits, Load, Plan, Recipe, TraceRef, Waits, Warmup, make
from workloom.session import Call, Edge, Header, Part, Session, prompt_tokens
from workloom.traces import native

UNTOLD_CONTEXT = 8192
"""Longest call where a server does not say its own, tokens."""
SPARE = 0.98
"""Of the longest call: a server's chat template adds tokens."""
NO_WARMUP = Warmup()
ANSWER = 4
"""Output tokens of calls that are about their first: one alone may be no text (half a letter, a tag)."""


@dataclass
class Ran:
    """A run, and which row is which call of the sessions that were made for it."""

    plan: Plan
    run: Measured

    @cached_property
    def rows(self) -> dict[tuple[str, str], int]:
        """Row by (session, call); of sessions that ran."""
        found: dict[tuple[str, str], int] = {}
        calls = self.run.calls
        known: dict[int, Session] = {}
        for row, (instance, ordinal) in enumerate(zip(calls.instance.tolist(), calls.ordinal.tolist(), strict=True)):
            k = int(instance)
            if k not in known:
                known[k] = self.plan.instance(k).session
            session = known[k]
            found[session.id, session.calls[int(ordinal)].id] = row
        return found

    @cached_property
    def ok(self) -> Bools:
        """Rows of calls whose whole answer came."""
        good: Bools = self.run.calls.status == OK
        return good

    @cached_property
    def ttft_s(self) -> Floats:
        """TTFT of each row: infinite of a failed call, nan where there was none."""
        return per_call.ttft_s(self.run.calls)

    @cached_property
    def prompt_tokens(self) -> Floats:
        return self.run.prompt_tokens

    @property
    def failed(self) -> int:
        """Calls that failed."""
        return int(np.count_nonzero(self.run.calls.failed))

    @property
    def unsent(self) -> int:
        """Calls of the plan that were not carried to an end: there was no time."""
        return self.plan.source.calls - int(np.count_nonzero(self.ok | self.run.calls.failed))


@dataclass
class Lab:
    """A target, and a folder for what is done to it.

    `seconds`: how long a live probe may take in all (None: as long as it does; simulated ones take no time that
    counts). `salt`: what makes the texts of a live run; `say` hears what goes on.
    """

    target: Simulated | Live
    folder: Path
    options: Options
    argv: Sequence[str] = ()
    seed: int = 0
    seconds: float | None = None
    max_context: int | None = None
    salt: Callable[[Plan], int] = lambda plan: plan.text_salt
    say: Callable[[str], None] = lambda words: None
    runs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the answers of these runs must be read with."""
    _began: float | None = None
    _answered: bool = False

    @property
    def live(self) -> bool:
        return isinstance(self.target, Live)

    @property
    def longest(self) -> int:
        """Longest call that is asked for, prompt + answer, tokens."""
        told = self.target.max_model_len if isinstance(self.target, Live) else self.target.longest_call
        if told is None and self.max_context is None:
            self.note(
                f"the server does not say how long a call may be: up to {UNTOLD_CONTEXT:,} tokens (--max-context)"
            )
        limits = [limit for limit in (told, self.max_context) if limit is not None]
        longest = int(min(limits, default=UNTOLD_CONTEXT))
        return longest if longest == self.max_context else int(longest * SPARE)

    def note(self, words: str) -> None:
        """Remember a remark, once."""
        if words not in self.notes:
            self.notes.append(words)

    @property
    def left_s(self) -> float:
        """Seconds that are left; infinite where nothing bounds them."""
        if self.seconds is None or not self.live:
            return math.inf
        began = self._began if self._began is not None else host.monotonic()
        return self.seconds - (host.monotonic() - began)

    @property
    def spent(self) -> bool:
        """Whether there is no time for another run; it is noted."""
        if self.left_s >= 1:
            return False
        self.note(f"stopped after {self.seconds:g} s (--seconds): what is missing was not measured")
        return True

    def run(self, name: str, sessions: Iterable[Session]) -> Ran:
        """Sessions in a run of their own: each once, one after another in an order that the seed says.

        Where time is bounded the run ends with what is left of it.
        """
        made = list(sessions)
        path = self.trace(name, made)
        left = self.left_s
        limits = Limits() if math.isinf(left) else Limits(math.ceil(max(left, 1)), len(made))
        return self.carry_out(name, self.plan(path, Closed(1), limits))

    def trace(self, name: str, sessions: Iterable[Session]) -> Path:
        """Sessions as a file of the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.jsonl"
        native.write(path, Header(source="workloom probe"), sessions)
        return path

    def plan(self, path: Path, load: Load, limits: Limits, warmup: Warmup = NO_WARMUP) -> Plan:
        """The plan of a trace that was made; waits as they stand in it."""
        return make(
            Recipe(TraceRef((str(path),)), load, limits, Waits(None), self._context(), warmup=warmup, seed=self.seed)
        )

    def _context(self) -> Context:
        told = self.target.max_model_len if isinstance(self.target, Live) else self.target.longest_call
        return Context(told)

    def carry_out(self, name: str, plan: Plan) -> Ran:
        """A plan in a run directory of the folder. Raises Hopeless, and KeyboardInterrupt when the run was ended so."""
        if self._began is None:
            self._began = host.monotonic()
        target = self.target
        if isinstance(target, Live):
            salt = seeds.number(self.salt(plan), "probe", name)  # no run meets the texts of another
            target = replace(target, salt=salt, http=replace(target.http, salt=salt))
        self.folder.mkdir(parents=True, exist_ok=True)
        run = kept(plan, target, self.folder / name, self.options, list(self.argv))
        self.runs.append(name)
        assert run.manifest is not None
        if run.manifest.status == "interrupted":
            raise KeyboardInterrupt
        if run.manifest.status == "failed":
            raise Hopeless(
                "a run of the probe was ended early",
                where=str(self.folder / name),
                found=run.manifest.error,
                hint="is the server well? `workloom check URL` finds out",
            )
        ran = Ran(plan, run)
        self._answered = self._answered or bool(ran.ok.any())
        if not self._answered and ran.failed:
            raise Hopeless(
                "no call of the probe succeeded",
                where=str(self.folder / name),
                found=f"{ran.failed:,} of {len(run.calls):,} calls failed",
                hint="`workloom check URL` finds out what a server cannot do",
            )
        if ran.failed and isinstance(target, Live) and not ran.ok.any():
            require_server(target, self.folder / name, "the runs made so far are kept")
        if ran.failed:
            self.note(f"{name}: {ran.failed:,} of {len(run.calls):,} calls failed; they count as infinite")
        return ran

    def warm(self, lengths: Sequence[int]) -> None:
        """A live server's first calls load and compile what later ones find: a few that are not looked at."""
        if not self.live:
            return
        self.say("a few calls that are not counted")
        wanted = sorted({lengths[0], lengths[len(lengths) // 2], lengths[-1]})
        calls: list[Call] = []
        for number, tokens in enumerate((wanted[0], *wanted)):
            after = (Edge(calls[-1].id),) if calls else ()
            calls.append(Call(str(number), ANSWER, after=after, fresh=(Part("user", tokens),)))
        self.run("warmup", [Session("warm-up", tuple(calls))])


def tokens_of(sessions: Iterable[Session]) -> tuple[int, int]:
    """Calls, and prompt tokens in all, by the plan."""
    calls = tokens = 0
    for session in sessions:
        calls += len(session.calls)
        tokens += sum(prompt_tokens(session).values())
    return calls, tokens


def geometric(low: int, high: int, ratio: float = 2.0) -> list[int]:
    """`low`, `low * ratio`, ... and `high`, which is the last; a step shorter than half of one is left out."""
    found: list[int] = []
    at = float(low)
    while at < high / math.sqrt(ratio):
        found.append(round(at))
        at *= ratio
    return [*found, max(high, 1)]
