"""Emptying a server's prefix cache before a run, so that it does not start on what the run before left warm."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event

import msgspec
from msgspec import Struct

from workloom.drive.scrape.fetch import Answer, Asker, root, tls


class Reset(Struct, frozen=True):
    """What was done. `done` only where the server said that it did it."""

    url: str
    done: bool
    how: str = ""
    """The request that was answered well."""
    said: str = ""
    """Why not, or what still may be warm."""

    def say(self) -> str:
        """One line for a user."""
        if self.done:
            return f"prefix cache reset ({self.how})" + (f"; {self.said}" if self.said else "")
        return f"the prefix cache could not be reset: {self.said}"


TRIES = 4
PAUSE_S = 0.25
_VLLM = "/reset_prefix_cache?reset_external=true"
_SGLANG = "/flush_cache"
_SLOTS = "/slots"
_DYNAMO = "/clear_kv_blocks"
_WAYS = {
    "vllm": [_VLLM],
    "sglang": [_SGLANG],
    "llamacpp": [_SLOTS],
    "dynamo_frontend": [_DYNAMO],
    "dynamo_component": ["/engine/control/clear_kv_blocks"],
}
_HINTS = {
    _VLLM: "vLLM has it when started with VLLM_SERVER_DEV_MODE=1",
    _SLOTS: "llama.cpp has it when started with --slots and --slot-save-path",
    _DYNAMO: "Dynamo has it at some versions only, or at the system port of each worker",
}


def reset_prefix_cache(
    url: str,
    family: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    within_s: float = 10.0,
    ca: str | None = None,
    insecure: bool = False,
) -> Reset:
    """Ask the server at `url` to forget its prefix cache. `family` as in :mod:`families`; None: by its /metrics.

    An unknown server is asked in every way there is; ways it does not have cost nothing.
    """
    base = root(url)
    try:
        asker = Asker(headers, within_s, tls(ca, insecure) if base.startswith("https") else None)
    except (OSError, ValueError) as fault:
        return Reset(url, False, said=f"the file of certificates cannot be used: {fault}")
    families = [family] if family is not None else _families(base, asker)
    ways = list(dict.fromkeys(way for name in families for way in _WAYS.get(name, [])))
    if not ways:
        ways = list(dict.fromkeys(way for known in _WAYS.values() for way in known))
    refusals = []
    for way in ways:
        if way == _SLOTS:
            done, said = _erase_slots(base, asker)
        else:
            done, said = _post(base + way, asker)
        if done:
            return Reset(url, True, f"POST {way.partition('?')[0]}", said)
        hint = f" ({_HINTS[way]})" if way in _HINTS and len(ways) <= 2 else ""
        refusals.append(f"{way.partition('?')[0]}: {said}{hint}")
    return Reset(url, False, said="; ".join(refusals))


def _families(base: str, asker: Asker) -> list[str]:
    from workloom.drive.scrape.page import read  # and with it the parser, which a run has no other use for

    answer = asker.get(base + "/metrics")
    return read(answer.text).families if answer.ok else []


def _post(url: str, asker: Asker) -> tuple[bool, str]:
    """Again for a while where requests hold blocks still: one that was cancelled just now lets go at its next step."""
    pause = Event()
    for _ in range(TRIES):
        answer = asker.post(url)
        done, said = _judge(answer)
        if done or not answer.ok:
            return done, said
        pause.wait(PAUSE_S)
    return done, said


def _judge(answer: Answer) -> tuple[bool, str]:
    """Newer vLLM says 200 and `{"success": false}` while blocks are in use."""
    if not answer.ok:
        return False, answer.text
    try:
        said = msgspec.json.decode(answer.text) if answer.text else None
    except msgspec.DecodeError:
        return True, ""
    if isinstance(said, dict) and said.get("success") is False:
        return False, "the server says it did not succeed: are requests still running?"
    if isinstance(said, dict) and said.get("failed_workers"):
        return False, "not all workers did it"
    return True, ""


def _erase_slots(base: str, asker: Asker) -> tuple[bool, str]:
    """llama.cpp keeps a cache for each slot, and erases them one by one."""
    listed = asker.get(base + _SLOTS)
    if not listed.ok:
        return False, listed.text
    try:
        slots = msgspec.json.decode(listed.text, type=list[dict[str, object]])
    except msgspec.DecodeError:
        return False, "it is no list of slots"
    if not slots:
        return False, "the server lists no slots"
    for at, slot in enumerate(slots):
        where = f"{base}{_SLOTS}/{slot.get('id', at)}?action=erase"
        answer = asker.post(where)
        if not answer.ok:
            return False, f"{at} of {len(slots)} slots erased, then {answer.text}"
    return True, ""
