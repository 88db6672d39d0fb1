"""Probes of what a server does when something is wrong: names, fields, lengths, and a client that goes."""

from __future__ import annotations

from workloom.drive.probe.answer import Answer
from workloom.drive.probe.findings import Finding, Verdict, found
from workloom.drive.probe.lab import Lab
from workloom.drive.probe.server import GENERATED, RUNNING, gauge

LONGEST_TRIED = 40_000
"""A context beyond this is not overfilled: it would take too long."""
_STREAM_TOKENS = 4_000
"""Asked of the stream that is dropped."""
_SETTLE_S = 3.0
"""How long a server may take to notice that a client has gone."""
_POLL_S = 0.15
_QUIET_POLLS = 2
"""So often must nothing be running: a page of metrics may be a moment old."""


async def model_name(lab: Lab) -> list[Finding]:
    """Is a wrong model name refused?"""
    answer = await lab.say("Hello", 1, model="no-such-model-at-all")
    if answer.ok:
        return [found("faults", "wrong_model", "ignored", "a model that does not exist is served all the same")]
    return [found("faults", "wrong_model", _yes_if_refused(answer), f"{answer.error}")]


async def unknown_field(lab: Lab) -> list[Finding]:
    """Are body fields that it does not know refused or passed over?"""
    answer = await lab.say("Hello", 1, workloom_unknown_field=1)
    if answer.ok:
        return [found("faults", "unknown_field", "ignored", "a body field that it does not know is passed over")]
    return [found("faults", "unknown_field", "no" if answer.refused else "unknown", f"{answer.error}")]


async def dropped(lab: Lab) -> list[Finding]:
    """Does a dropped connection end the generation? Only a server's own gauges can tell."""
    name, before = "drop_stops", await gauge(lab, RUNNING)
    if before is None:
        return [found("faults", name, "unknown", "no metrics tell how many calls are running")]
    if before:
        return [found("faults", name, "unknown", f"not tried: {before:g} calls of others are running")]
    limit = lab.known.max_model_len
    asked = min(_STREAM_TOKENS, limit // 2) if limit else _STREAM_TOKENS
    api = lab.known.primary
    assert api is not None
    long = api in ("chat", "completions") and "ignore_eos" not in lab.known.exact_refused
    fields = {"ignore_eos": True} if long else {}
    made = await gauge(lab, GENERATED)
    answer = await lab.ask(api, lab.body(api, "Tell a long story.", asked, **fields), stop_after=4)
    dropped_s = lab.wire.now_s()
    if answer.ending != "hung up":
        why = answer.error or "the answer ended before it could be dropped"
        return [found("faults", name, "unknown", why)]
    quiet = 0
    while quiet < _QUIET_POLLS:
        await lab.wire.pause(_POLL_S)
        running = await gauge(lab, RUNNING)
        quiet = quiet + 1 if running == 0 else 0
        if not quiet and lab.wire.now_s() - dropped_s > _SETTLE_S:
            if running is None:
                return [found("faults", name, "unknown", "the metrics can no longer be read")]
            return [found("faults", name, "no", f"still running {_SETTLE_S:g} s after the client had gone")]
    took_s = lab.wire.now_s() - dropped_s
    grown = await gauge(lab, GENERATED)
    if made is None or grown is None:
        return [found("faults", name, "yes", f"no longer running {took_s:.1f} s after the client had gone")]
    text = (
        f"{grown - made:.0f} of {asked:,} tokens were made; no longer running {took_s:.1f} s after the client had gone"
    )
    return [found("faults", name, "yes" if grown - made < 0.9 * asked else "no", text)]


async def too_long(lab: Lab) -> list[Finding]:
    """How is a prompt refused that is longer than the context? Asked last: some servers do not get over it."""
    name, limit = "too_long_prompt", lab.known.max_model_len
    if limit is None:
        return [found("faults", name, "unknown", "not tried: the server does not tell its longest call")]
    if limit > LONGEST_TRIED:
        return [found("faults", name, "unknown", f"not tried: {limit:,} tokens are many (limit {LONGEST_TRIED:,})")]
    answer = await lab.say(lab.words(limit + 64), 4)
    alive = await lab.say("Hello", 1)
    after = "" if alive.ok else f"; AFTER IT the server does not answer: {alive.error}"
    if answer.ok:
        counted = f", counted as {answer.prompt_tokens:,} tokens" if answer.prompt_tokens else ""
        return [found("faults", name, "ignored", f"{limit + 64:,} words are answered all the same{counted}{after}")]
    how = "an error inside the stream, after status 200: " if answer.error_in_stream else ""
    verdict: Verdict = "yes" if answer.error_in_stream or answer.refused else "unknown"
    return [found("faults", name, verdict, f"{how}{answer.error}{after}")]


def _yes_if_refused(answer: Answer) -> Verdict:
    return "yes" if answer.refused or answer.error_in_stream else "unknown"
