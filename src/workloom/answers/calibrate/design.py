"""The workload that shows everything a calibration needs, in about five minutes.

    ramps       one call more every 0.6 s, up to `most` at once, each arrival alone: steps of every batch, and the stall
                of a lone arrival at every batch; each ramp with prompts of another size
    lengths     conversations beside a few calls that decode: equal fresh text on ever longer prompts, so that a prompt
                token's cost in the front end is not that of computing it
    chunks      lone arrivals of prompts from small to the size of a step's budget and over it
    together    two and three calls sent at one instant: what each newly admitted call adds to a launch
    contexts    long contexts that decode, several sizes and batches: what reading a context token costs

Sessions start at fixed instants of one clock: `workloom run PLAN --replay` sends them as they stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from workloom.errors import UsageError
from workloom.session import Call, Edge, Header, Inherit, Part, Session

_Arrivals = Callable[[float, "Design"], Iterator[Session]]
HEADER = Header(source="workloom calibrate --plan", common_clock=True)
SPACING_S = 0.6
"""Between lone arrivals: a stall is over by then."""
FRESH = 300
"""Fresh tokens of a conversation's turns."""


class Design(Struct, frozen=True):
    """`most`: calls at once, a third of the load that is to be predicted or more. `context`: the longest call, tokens.
    `step_s`: about how long a decode step takes, which says how many tokens keep a call busy for so long."""

    most: int = 24
    context: int = 40_000
    step_s: float = 0.01
    budget: int = 8192

    def __post_init__(self) -> None:
        if not 4 <= self.most <= 512:
            raise UsageError("calls at once of a calibration", expected="4 to 512", found=self.most)
        if self.context < 2000:
            raise UsageError("the longest call of a calibration", expected="2,000 tokens or more", found=self.context)


def sessions(design: Design) -> Iterator[Session]:
    """The sessions, by their starts."""
    at = 0.0
    for number, prompt in enumerate((64, 600, 1500)):
        most = design.most if number < 2 else max(4, design.most // 2)
        yield from _ramp(f"ramp {number + 1}", at, most, min(prompt, design.context // 2), design)
        at += most * SPACING_S + 8
    yield from _beside("lengths", at, 50.0, 3, design, _conversation)
    at += 56
    yield from _beside("chunks", at, 40.0, 2, design, _chunks)
    at += 46
    yield from _beside("together", at, 36.0 + design.most // 2 * SPACING_S, max(4, design.most // 2), design, _together)
    at += 70 + max(4, design.most // 2) * SPACING_S
    yield from _contexts(at, design)


def _call(name: str, prompt: int, output: int, design: Design) -> Call:
    output = max(2, min(output, design.context - prompt))
    return Call(name, output, fresh=(Part("user", prompt),))


def _ramp(name: str, at: float, most: int, prompt: int, design: Design) -> Iterator[Session]:
    """All of them decode until the last one has for a while."""
    for k in range(most):
        busy = (most - k) * SPACING_S + 4
        call = _call("0", prompt, round(busy / design.step_s * 0.7), design)
        yield Session(f"{name}, call {k + 1}", (call,), start_s=at + k * SPACING_S)


def _beside(name: str, at: float, lasting: float, count: int, design: Design, arrivals: _Arrivals) -> Iterator[Session]:
    """Arrivals while `count` calls decode, each going on where it was when its answer ends."""
    for k in range(count):
        calls: list[Call] = []
        for turn in range(max(1, round(lasting / 12))):
            output = round(14 / design.step_s)
            after = (Edge(calls[-1].id),) if calls else ()
            call = _call(str(turn), 128, min(output, design.context - 128), design)
            calls.append(Call(call.id, call.output_tokens, after=after, fresh=call.fresh))
        yield Session(f"{name}, decoding {k + 1}", tuple(calls), start_s=at + k * SPACING_S)
    yield from arrivals(at + count * SPACING_S + 1, design)


def _conversation(at: float, design: Design) -> Iterator[Session]:
    """Turns of equal fresh text and short answers, one after another and one second apart."""
    for k in range(3):
        calls: list[Call] = []
        tokens = 0
        while tokens < min(12 * (FRESH + 16) * 2, design.context - 2 * FRESH) and len(calls) < 14:
            fresh = FRESH * (4 if len(calls) % 2 else 1)
            after = (Edge(calls[-1].id, 1.0, "human"),) if calls else ()
            inherit = Inherit(calls[-1].id) if calls else None
            calls.append(Call(str(len(calls)), 16, after=after, inherit=inherit, fresh=(Part("user", fresh),)))
            tokens += fresh + 16
        yield Session(f"lengths, conversation {k + 1}", tuple(calls), start_s=at + 15.7 * k)


def _chunks(at: float, design: Design) -> Iterator[Session]:
    sizes = [32, 128, 300, 480, 800, 1200, 2400, 3600, 5000, 7000, design.budget * 3 // 2, design.budget * 5 // 2]
    for k in range(3 * len(sizes)):
        size = min(sizes[k % len(sizes)], design.context - 16)
        yield Session(f"chunks, arrival {k + 1}", (_call("0", size, 16, design),), start_s=at + 1.05 * k)


def _together(at: float, design: Design) -> Iterator[Session]:
    for k in range(24):
        size = (64, 300, 900, 1800)[k % 4]
        for each in range(2 + (k // 4) % 2):
            name = f"together, {k + 1}.{each + 1}"
            yield Session(name, (_call("0", size, 16, design),), start_s=at + 1.2 * k)


def _contexts(at: float, design: Design) -> Iterator[Session]:
    longest = design.context - round(8 / design.step_s)
    for k, share in enumerate((0.55, 1.0, 0.75, 0.9)):
        if longest * share > 1000:
            size = round(longest * share)
            yield Session(
                f"contexts, {k + 1}", (_call("0", size, round(8 / design.step_s), design),), start_s=at + 4.0 * k
            )
