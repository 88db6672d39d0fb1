"""The books of an engine, for tests: an invariant is a function."""

from __future__ import annotations

from workloom.engine.engine import Engine


def check(engine: Engine) -> None:
    """Raise AssertionError unless the books balance: blocks free + held = total, holds and reference counts agree."""
    scheduler, queue = engine.scheduler, engine.queue
    size = engine.profile.block_tokens
    held_tokens = {sequence: scheduler.step + sequence.lag for sequence in scheduler.decoding.values()}
    if scheduler.partial is not None:
        held_tokens[scheduler.partial] = scheduler.partial.computed
    if engine._leap is not None:  # blocks for its first step are taken
        held_tokens = {sequence: tokens + 1 for sequence, tokens in held_tokens.items()}
        held_tokens |= {sequence: sequence.computed + chunk for sequence, chunk in engine._leap.batch.prefills}
    refs: dict[int, int] = {}
    plain = 0
    for sequence, computed in held_tokens.items():
        findable = 0
        for hold in sequence.holds:
            run = hold.run
            while True:
                refs[id(run)] = refs.get(id(run), 0) + 1
                findable = run.end
                if run.end >= hold.end:
                    break
                assert run.right is not None
                run = run.right
        assert findable == sequence.registered, "a sequence holds what it registered"
        plain += -(-computed // size) - sequence.registered
    held = 0
    nodes = [engine.cache.root]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.branches.values())
        assert node.copies or node.branches or node.pins, "a node that holds nothing is gone"
        for run in node.copies:
            assert run.refs == refs.get(id(run), 0), "references are counted right"
            assert (run.before is not None) == (run.refs == 0), "free runs are queued, held ones are not"
            held += len(run) if run.refs else 0
    free = sum(len(run) for run in queue)
    assert free == queue.free, "the queue holds what it says"
    assert free + held + plain == queue.blocks, "blocks free + used = total"
