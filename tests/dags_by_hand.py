"""Small runs worked out by hand: the records, and what the metrics of the workflow must say of them.

Every figure in `Expected` was found with pencil and paper from the picture above its world; seconds throughout.

    call("b", "3 3 4 6 9 10", "a+2:tool")     due 3, sent 3, admitted 4, first 6, last 9, done 10; 2 s after a, a tool
    call("b", "3 6 10", "a+2:tool")           due, sent and admitted 3, first 6, last and done 10
"""

from __future__ import annotations

from typing import NamedTuple, cast

from msgspec import Struct

from workloom.records import CallRecord, CallStatus, Dependency, SessionRecord
from workloom.session import Gap

S = 1_000_000_000
INF = float("inf")


class Made(NamedTuple):
    """A call, and what it waits for by name."""

    record: CallRecord
    after: str


class Expected(Struct, frozen=True):
    """What the metrics must say."""

    makespan: float
    path: str = ""
    """Calls of the critical path, first to last; empty: it has none."""
    parts: dict[str, float] = {}
    join: dict[str, float] = {}
    """Of these, what was done in subagents."""
    slack: dict[str, float] = {}
    """Of calls that have some."""
    tasks: tuple[str, ...] = ()
    """The calls of each."""
    task_makespans: tuple[float, ...] = ()
    ttfut: tuple[float, ...] = ()
    ttfat: tuple[float, ...] = ()
    depths: str = ""
    """Calls of subagents with their depth: `s0:1 n0:2`."""


class World(NamedTuple):
    """One session."""

    name: str
    calls: list[Made]
    expected: Expected
    status: str = "ok"


def call(name: str, instants: str, after: str = "", agent: str = "main", **fields: object) -> Made:
    """A call; `after` names what it waits for: ``a+2:tool b+0:spawn``. An instant that is not there is a dash."""
    told = [None if word == "-" else float(word) for word in instants.split()]
    if len(told) == 3:
        due, first, done = told
        told = [due, due, due, first, done, done]
    due_ns, sent_ns, admitted_ns, first_ns, last_ns, done_ns = (None if x is None else round(x * S) for x in told)
    record = CallRecord(
        instance=0,
        session="s",
        call=name,
        agent=agent,
        model="m",
        status="ok",
        due_ns=cast(int, due_ns),
        sent_ns=sent_ns,
        admitted_ns=admitted_ns,
        first_ns=first_ns,
        last_ns=last_ns,
        done_ns=done_ns,
        prompt_tokens=100,
        cached_tokens=40,
        output_tokens=0 if first_ns is None else 10,
    )
    for field, value in fields.items():
        setattr(record, field, value)
    return Made(record, after)


def never_sent(name: str, due: float, after: str, agent: str = "main") -> Made:
    """A call whose parent failed: it is due when that did, and nothing else."""
    status: CallStatus = "cancelled"
    return call(name, f"{due} - - - - -", after, agent, status=status, prompt_tokens=None, cached_tokens=None)


def records(world: World, instance: int = 0, calls_before: int = 0) -> tuple[list[CallRecord], SessionRecord]:
    """The rows of a world."""
    places = {made.record.call: i for i, made in enumerate(world.calls)}
    rows = []
    for i, made in enumerate(world.calls):
        row = made.record
        row.instance, row.ordinal = instance, i
        row.after = [_edge(word, places) for word in made.after.split()]
        rows.append(row)
    end = max(row.done_ns or 0 for row in rows)
    due = rows[0].due_ns
    status = cast("object", world.status)
    session = SessionRecord(instance, world.name, status, due, due, end, len(rows), calls_before=calls_before)  # type: ignore[arg-type]
    return rows, session


def _edge(word: str, places: dict[str, int]) -> Dependency:
    name, _, rest = word.partition("+")
    wait, _, gap = rest.partition(":")
    return Dependency(places[name], round(float(wait) * S), cast(Gap, gap))


def chain() -> World:
    """a ─tool 2─► b"""
    return World(
        "chain",
        [call("a", "0 0 1 3 8 8"), call("b", "10 10 10 11 14 15", "a+2:tool")],
        Expected(
            makespan=15,
            path="a b",
            parts={"queue": 1, "prefill": 3, "decode": 8, "stream_end": 1, "tool": 2},
            tasks=("a b",),
            task_makespans=(15,),
            ttfut=(3,),
            ttfat=(11,),
        ),
    )


def fan_out() -> World:
    """a ─► b (main goes on), c and d are spawned and nobody waits for them; c ends last."""
    return World(
        "fan-out",
        [
            call("a", "0 1 4"),
            call("b", "5 6 9", "a+1:tool"),
            call("c", "4 5 12", "a+0:spawn", "explore:1"),
            call("d", "4 5 6", "a+0:spawn", "explore:2"),
        ],
        Expected(
            makespan=12,
            path="a c",
            parts={"prefill": 2, "decode": 10},
            join={"prefill": 1, "decode": 7},
            slack={"b": 3, "d": 6},
            tasks=("a b c d",),
            task_makespans=(12,),
            ttfut=(1,),
            ttfat=(6,),
            depths="c:1 d:1",
        ),
    )


def fan_in() -> World:
    """a spawns b and c; j waits 1 s after b (done 7) and 4 s after c (done 5): c binds it though it ended earlier."""
    return World(
        "fan-in with two waits",
        [
            call("a", "0 1 2"),
            call("b", "3 4 7", "a+1:spawn", "explore:1"),
            call("c", "3 4 5", "a+1:spawn", "explore:2"),
            call("j", "9 10 12", "b+1:tool c+4:tool"),
        ],
        Expected(
            makespan=12,
            path="a c j",
            parts={"prefill": 3, "decode": 4, "spawn": 1, "tool": 4},
            join={"prefill": 1, "decode": 1, "spawn": 1},
            slack={"b": 1},
            tasks=("a b c j",),
            task_makespans=(12,),
            ttfut=(1,),
            ttfat=(10,),
            depths="b:1 c:1",
        ),
    )


def nested() -> World:
    """main m0 ─► planner s0 ─► searcher n0 ─► s1 ─► m1"""
    return World(
        "nested subagents",
        [
            call("m0", "0 1 2"),
            call("s0", "2 3 4", "m0+0:spawn", "planner"),
            call("n0", "4 5 9", "s0+0:spawn", "searcher"),
            call("s1", "9 10 11", "s0+1:tool n0+0:tool", "planner"),
            call("m1", "11 12 13", "s1+0:orchestration"),
        ],
        Expected(
            makespan=13,
            path="m0 s0 n0 s1 m1",
            parts={"prefill": 5, "decode": 8},
            join={"prefill": 3, "decode": 6},
            tasks=("m0 s0 n0 s1 m1",),
            task_makespans=(13,),
            ttfut=(1,),
            ttfat=(12,),
            depths="s0:1 n0:2 s1:1",
        ),
    )


def fork() -> World:
    """One agent tries two ways at once from the same context; d takes the better of both."""
    return World(
        "fork",
        [
            call("a", "0 1 2"),
            call("b", "3 4 5", "a+1:tool"),
            call("c", "3 4 10", "a+1:tool"),
            call("d", "10 11 11", "b+0:orchestration c+0:orchestration"),
        ],
        Expected(
            makespan=11,
            path="a c d",
            parts={"prefill": 3, "decode": 7, "tool": 1},
            slack={"b": 5},
            tasks=("a b c d",),
            task_makespans=(11,),
            ttfut=(1,),
            ttfat=(11,),
        ),
    )


def compaction() -> World:
    """a ─1 s, nobody says for what─► k (summary) ─orchestration 2─► b"""
    return World(
        "compaction",
        [
            call("a", "0 2 3"),
            call("k", "4 5 7", "a+1:none"),
            call("b", "9 9 9 10 11 12", "k+2:orchestration"),
        ],
        Expected(
            makespan=12,
            path="a k b",
            parts={"prefill": 4, "decode": 4, "stream_end": 1, "unnamed": 1, "orchestration": 2},
            tasks=("a k b",),
            task_makespans=(12,),
            ttfut=(2,),
            ttfat=(10,),
        ),
    )


def human_pause() -> World:
    """t0 ─► t1 ··human 10··► t2 ─► t3: two tasks in one session."""
    return World(
        "human pause",
        [
            call("t0", "0 1 2"),
            call("t1", "3 4 5", "t0+1:tool"),
            call("t2", "15 16 18", "t1+10:human"),
            call("t3", "19 20 20", "t2+1:network"),
        ],
        Expected(
            makespan=20,
            path="t0 t1 t2 t3",
            parts={"prefill": 4, "decode": 4, "tool": 1, "human": 10, "network": 1},
            tasks=("t0 t1", "t2 t3"),
            task_makespans=(5, 5),
            ttfut=(1, 1),
            ttfat=(4, 5),
        ),
    )


def failed_branch() -> World:
    """h0 ··human··► m0 ─► x (fails at 8) ─ ─ y, never sent
    └──► m1 (done 9) ─ ─ ─ ─ j, which waits for both: never sent"""
    return World(
        "failed branch",
        [
            call("h0", "0 1 2"),
            call("m0", "3 4 5", "h0+1:human"),
            call("x", "5 5 5 6 7 8", "m0+0:spawn", "explore:1", status="error", error_kind="http", output_tokens=6),
            never_sent("y", 8, "x+1:tool", "explore:1"),
            call("m1", "6 7 9", "m0+1:tool"),
            never_sent("j", 8, "y+0:tool m1+0:tool"),
        ],
        Expected(
            makespan=INF,
            tasks=("h0", "m0 x y m1 j"),
            task_makespans=(2, INF),
            ttfut=(1, 1),
            ttfat=(1, INF),
            depths="x:1 y:1",
        ),
        status="failed",
    )


def live() -> World:
    """a late and on a new connection, b sent twice, c without an answer; the server does not say when it began."""
    return World(
        "lag, connect and retry",
        [
            call("a", "0 3 - 5 7 8", connect_ns=2 * S),
            call("b", "9 14 - 15 16 16", "a+1:tool", connect_ns=1 * S, retries=1),
            call("c", "16 16 - - - 18", "b+0:none"),
        ],
        Expected(
            makespan=18,
            path="a b c",
            parts={
                "lag": 1,
                "connect": 3,
                "queue_or_prefill": 5,
                "decode": 3,
                "stream_end": 1,
                "tool": 1,
                "retry": 4,
            },
            tasks=("a b c",),
            task_makespans=(18,),
            ttfut=(5,),
            ttfat=(15,),
        ),
    )


def background() -> World:
    """m0 ─► m1 (the answer) ··human 3··► m2 ─► m3
    └─spawn─► bg (done 12, long after the answer) ──┘"""
    return World(
        "background subagent",
        [
            call("m0", "0 1 2"),
            call("m1", "2 3 4", "m0+0:tool"),
            call("bg", "2 3 12", "m0+0:spawn", "watcher"),
            call("m2", "7 8 9", "m1+3:human"),
            call("m3", "13 14 15", "m2+0:tool bg+1:tool"),
        ],
        Expected(
            makespan=15,
            path="m0 bg m3",
            parts={"prefill": 3, "decode": 11, "tool": 1},
            join={"prefill": 1, "decode": 9},
            slack={"m1": 4, "m2": 4},
            tasks=("m0 m1 bg", "m2 m3"),
            task_makespans=(12, 8),
            ttfut=(1, 1),
            ttfat=(3, 7),
            depths="bg:1",
        ),
    )


def capped() -> World:
    """a ··human 100, of which a cap on idle time left 10··► b"""
    return World(
        "idle cap",
        [call("a", "0 1 2"), call("b", "12 13 14", "a+100:human")],
        Expected(
            makespan=14,
            path="a b",
            parts={"prefill": 2, "decode": 2, "human": 10},
            tasks=("a", "b"),
            task_makespans=(2, 2),
            ttfut=(1, 1),
            ttfat=(1, 1),
        ),
    )


def capped_join() -> World:
    """c waits for a (100 s, of which a cap left less than 7) and for b: it was due 5 s after b, so b bound it."""
    return World(
        "idle cap before a join",
        [
            call("a", "0 1 2"),
            call("b", "2 3 4", "a+0:tool"),
            call("c", "9 10 11", "a+100:network b+5:tool"),
        ],
        Expected(
            makespan=11,
            path="a b c",
            parts={"prefill": 3, "decode": 3, "tool": 5},
            tasks=("a b c",),
            task_makespans=(11,),
            ttfut=(1,),
            ttfat=(10,),
        ),
    )


WORLDS = (
    chain,
    fan_out,
    fan_in,
    nested,
    fork,
    compaction,
    human_pause,
    failed_branch,
    live,
    background,
    capped,
    capped_join,
)
