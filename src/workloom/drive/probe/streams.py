"""Probes of the endpoints: which answer, and how their streams are cut up."""

from __future__ import annotations

from workloom.drive.probe.answer import Answer
from workloom.drive.probe.findings import Finding, Verdict, found
from workloom.drive.probe.lab import PATHS, Api, Lab

LENGTH = 32
"""Tokens of the first answers."""
_TASK = "Tell a story of a ship, a storm and an island. Once upon a time"
_PREFERRED: tuple[Api, ...] = ("chat", "completions", "responses", "messages")


async def endpoints(lab: Lab) -> list[Finding]:
    """Which APIs answer, by a short streamed request to each."""
    findings = []
    for api in _PREFERRED:
        answer = await _first(lab, api)
        if answer.ok and answer.streamed:
            lab.known.streams[api] = answer
            lab.known.primary = lab.known.primary or api
        findings.append(_endpoint(lab, api, answer))
    return [*findings, await _token_ids(lab)]


async def _first(lab: Lab, api: Api) -> Answer:
    """An answer, asked for as often as a server needs: without usage, or with the new name of the limit."""
    answer = await lab.say(_TASK, LENGTH, api=api)
    if api == "chat" and answer.refused and "max_completion_tokens" in (answer.error or ""):
        lab.known.limit_field = "max_completion_tokens"
        answer = await lab.say(_TASK, LENGTH, api=api)
    if api in ("chat", "completions") and answer.refused and "stream_options" in (answer.error or ""):
        answer = await lab.say(_TASK, LENGTH, api=api, stream_options=None)
    return answer


def _endpoint(lab: Lab, api: Api, answer: Answer) -> Finding:
    where = f"POST {lab.base}{PATHS[api]}"
    if answer.ok and answer.streamed:
        return found("endpoints", api, "yes", f"{where}: streams{_pace(answer)}")
    if answer.ok:
        return found("endpoints", api, "no", f"{where}: answers in one piece, though a stream was asked for")
    verdict: Verdict = "no" if answer.refused or answer.status == 200 else "unknown"
    return found("endpoints", api, verdict, f"{where}: {answer.error}")


def _pace(answer: Answer) -> str:
    first_ms = answer.chunks_ns[0] / 1e6
    count = len(answer.chunks_ns)
    if count < 2:
        return f"; one chunk after {first_ms:.1f} ms"
    gap_ms = (answer.chunks_ns[-1] - answer.chunks_ns[0]) / 1e6 / (count - 1)
    return f"; first chunk after {first_ms:.1f} ms, then one in {gap_ms:.2f} ms"


async def _token_ids(lab: Lab) -> Finding:
    """Does /completions take a prompt of token ids?"""
    name, count = "prompt_token_ids", 64
    if "completions" not in lab.known.streams:
        return found("endpoints", name, "no", "completions do not answer")
    ids = list(range(1000, 1000 + count))
    answer = await lab.say("", 1, api="completions", prompt=ids)
    if not answer.ok:
        return found("endpoints", name, "no" if answer.refused else "unknown", f"a prompt of ids: {answer.error}")
    counted = answer.prompt_tokens
    if counted is None:
        return found("endpoints", name, "unknown", "taken, but no usage tells how it was read")
    verdict: Verdict = "yes" if abs(counted - count) <= 2 else "no"
    return found("endpoints", name, verdict, f"a prompt of {count} ids is counted as {counted} tokens")


async def shape(lab: Lab) -> list[Finding]:
    """How the primary API's stream is cut up, from its first answer."""
    api = lab.known.primary
    if api is None:
        return []
    answer = lab.known.streams[api]
    findings = [_usage(answer), _done(answer)]
    if api == "chat":
        first = "the first chunk holds the role and no text: it is no token"
        verdict = answer.first_role_only
        text = first if verdict else "the first chunk holds text"
        findings.append(found("stream", "role_chunk_first", "yes" if verdict else "no", text))
    findings += [_reasoning(answer), await _returned_ids(lab), await _kept_alive(lab)]
    return findings


def _usage(answer: Answer) -> Finding:
    if answer.usage is None or answer.output_tokens is None:
        return found("stream", "usage", "no", "no chunk tells token counts, though they were asked for")
    words = {
        "finish": "in the last chunk of the answer",
        "empty": "in a chunk without choices",
        "every": "in every chunk",
        "body": "in the body",
    }
    places = " and ".join(words[place] for place in answer.places)
    return found(
        "stream", "usage", "yes", f"{places}: {answer.prompt_tokens} prompt, {answer.output_tokens} output tokens"
    )


def _done(answer: Answer) -> Finding:
    if answer.done:
        return found("stream", "end_mark", "yes", "[DONE], or the API's own last event, ends the stream")
    return found("stream", "end_mark", "no", "the stream ends without [DONE]: a cut one looks the same")


def _reasoning(answer: Answer) -> Finding:
    if answer.reasoning:
        return found("stream", "reasoning", "yes", f"reasoning came apart from the answer: {answer.reasoning[:40]!r}")
    return found("stream", "reasoning", "no", f"none in the first {answer.output_tokens or LENGTH} tokens")


async def _returned_ids(lab: Lab) -> Finding:
    """Does the server tell the ids of tokens?"""
    name = "return_token_ids"
    if lab.known.primary not in ("chat", "completions"):
        return found("stream", name, "no", f"the {lab.known.primary} API has no such field")
    answer = await lab.say(_TASK, 8, return_token_ids=True)
    if not answer.ok:
        return found("stream", name, "no" if answer.refused else "unknown", f"return_token_ids: {answer.error}")
    if answer.token_ids is None and answer.prompt_token_ids is None:
        return found("stream", name, "ignored", "return_token_ids is taken, and no ids come")
    text = f"{answer.token_ids or 0} ids of the answer, {answer.prompt_token_ids or 0} of the prompt"
    return found("stream", name, "yes", text)


async def _kept_alive(lab: Lab) -> Finding:
    """Does a connection carry a second call?"""
    lab.wire.close()
    first, second = await lab.say("Hello", 1), await lab.say("Hello", 1)
    if not (first.status and second.status):
        return found("stream", "keep_alive", "unknown", f"{first.error or second.error}")
    if first.ending == "hung up":
        return found("stream", "keep_alive", "no", "the body stays open after its last event: every call connects anew")
    if second.reused:
        return found("stream", "keep_alive", "yes", "a connection carries one call after the other")
    return found("stream", "keep_alive", "no", "the connection is closed after an answer: every call connects anew")


async def chunks(lab: Lab) -> list[Finding]:
    """One token, one chunk? Told from the longest answer so far; a token that ends an answer is no text."""
    api = lab.known.primary
    answer = lab.known.longest or (lab.known.streams[api] if api is not None else None)
    if answer is None:
        return []
    name, count, tokens = "chunk_per_token", len(answer.chunks_ns), answer.output_tokens
    if not tokens:
        return [found("stream", name, "unknown", f"{count} chunks; no usage tells how many tokens")]
    silent = f"; without text: {answer.silent_chunks}" if answer.silent_chunks else ""
    text = f"{count} chunks with text in {len(set(answer.chunks_ns))} reads for {tokens} tokens{silent}"
    ended = answer.finish in ("stop", "end_turn") and tokens - count == 1
    return [found("stream", name, "yes" if count == tokens or ended else "no", text)]
