"""The books of an engine, for tests: an invariant is a function."""

from __future__ import annotations

from collections import Counter

from workloom.engine.blocks import Run
from workloom.engine.engine import Engine
from workloom.engine.node import Node
from workloom.engine.prefix import PrefixCache
from workloom.engine.sequence import Sequence, parts


def check(engine: Engine) -> None:
    """Raise AssertionError unless the books balance: blocks free + held = total, holds and reference counts agree."""
    queue, cache = engine.queue, engine.cache
    running = _running(engine)
    refs: Counter[Run] = Counter()
    plain = 0
    for sequence, computed in running.items():
        assert _held(sequence, refs) == sequence.registered, "a sequence holds what it registered"
        plain += -(-computed // engine.profile.block_tokens) - sequence.registered
        pages = [page for page in (sequence.page, sequence.spent) if page is not None]
        assert all(len(page) == engine.profile.state_groups for page in pages), "states are whole while held"
        plain += sum(len(page) for page in pages if page.node is None)
        refs.update(pages)
    pins: Counter[Run] = Counter()
    for pin in cache.pins:
        pins.update(pin.runs())
    refs.update(pins)
    assert cache.pins.blocks == sum(len(run) for run in pins), "pinned blocks are counted once"
    held = 0
    for run in _findable(cache):
        assert run.refs == refs[run], "references are counted right"
        assert run.pins == pins[run], "so are pins"
        assert (run.before is not None) == (run.refs == 0), "free runs are queued, held ones are not"
        held += len(run) if run.refs else 0
    free = sum(len(run) for run in queue)
    assert free == queue.free, "the queue holds what it says"
    assert free + held + plain == queue.blocks, "blocks free + used = total"
    _check_tiers(engine)
    _check_calls(engine)


def _check_calls(engine: Engine) -> None:
    """Every call is in one place, and its tokens are those of the steps it took part in."""
    scheduler = engine.scheduler
    places = [sequence for _, sequence in engine._arriving if sequence.state == "front end"]
    places += [*scheduler.waiting, *scheduler.prefilling.values(), *scheduler.decoding.values()]
    if scheduler.loads is not None:
        places += scheduler.loads.calls.values()
    assert Counter(places) == Counter(engine._calls.values()), "every call is in one place"
    for sequence in places:
        decoding = sequence.call in scheduler.decoding
        given = scheduler.computed(sequence) - sequence.prompt_tokens + 1 if decoding else sequence.generated
        made = sum(end - first for first, end in scheduler.spells(sequence))
        assert made == given - sequence.received, "tokens out are those that steps gave"
        assert given < sequence.output_tokens, "a complete call is gone"


def _check_tiers(engine: Engine) -> None:
    for tier in engine.tiers.tiers if engine.tiers is not None else ():
        pages = sum((part.end - part.first) * tier.weights[part.state] for part, _ in tier.queue())
        assert pages == tier.pages, "a tier counts what it keeps"
        assert tier.capacity is None or tier.pages + tier.lent <= tier.capacity, "and keeps no more than it can"


def _running(engine: Engine) -> dict[Sequence, int]:
    """Calls that hold blocks, and the tokens they hold them for: those of the first step of a leap are taken."""
    scheduler, leap = engine.scheduler, engine._leap
    tokens = {sequence: sequence.computed for sequence in scheduler.prefilling.values()}
    if scheduler.loads is not None:
        tokens |= {call: call.computed for call in (*scheduler.loads.calls.values(), *scheduler.loads.ahead.values())}
    if leap is not None:
        tokens |= {sequence: sequence.computed + chunk for sequence, chunk in leap.batch.prefills}
    ahead = leap is not None and not leap.batch.paused
    return tokens | {s: scheduler.computed(s) + ahead for s in scheduler.decoding.values()}


def _held(sequence: Sequence, refs: Counter[Run]) -> int:
    """Count the runs that a sequence holds; up to which block they go."""
    end = 0
    for hold in sequence.holds:
        runs = parts(hold)
        refs.update(runs)
        end = runs[-1].end
    return end


def _findable(cache: PrefixCache) -> list[Run]:
    runs: list[Run] = []
    nodes: list[Node] = [cache.root]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.branches.values())
        assert not node.empty, "a node that holds nothing is gone"
        runs += [run for run in node.copies if run.node is node]  # it is noted in those before it that it spans, too
        runs += [run for states in node.states.values() for run in states]
    return runs
