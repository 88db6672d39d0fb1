"""What a run was: the manifest of a run directory, and what must never be written into one."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from msgspec import Struct, structs

from workloom import __version__
from workloom.clock import host
from workloom.drive.cost import WorkerCost

RunStatus = Literal["running", "finished", "interrupted", "failed", "killed"]
"""finished: to its planned end. interrupted: by the user. failed: by an error of its own. killed: found dead later."""

REDACTED = "[redacted]"


class Manifest(Struct, kw_only=True):
    """Enough to say what ran, on what, how it ended, and to run it again. Holds no secret."""

    format: int = 1
    workloom: str = __version__
    status: RunStatus = "running"
    plan_hash: str = ""
    seed: int = 0
    argv: list[str] = []
    config: dict[str, Any] = {}
    """The resolved configuration, defaults included."""
    backend: Literal["simulated", "http"]
    workload: str = ""
    """What the calls were made of, in words."""
    load: str = ""
    """How they were offered, in words: `8 sessions at once`, `0.5 sessions/s, Poisson`."""
    left_out: dict[str, int] = {}
    """What the plan left out, counted by reason."""
    host: dict[str, str | int | None] = {}
    started: str = ""
    """Wall clock in UTC, ISO 8601."""
    ended: str | None = None
    window_start_ns: int = 0
    """Start of the measured window, in the time of the run: the end of the warm-up."""
    window_end_ns: int | None = None
    """End of the measured window; None: the last instant that was recorded."""
    wall_s: float | None = None
    """Host seconds from the creation of the run directory to the end of the run, tables not included."""
    cpu_s: float | None = None
    """CPU seconds this process used in that time."""
    loaded_until_ns: int | None = None
    """Until when the load was as asked: then a free slot found nothing left, or the duration was over."""
    loop_lag_p99_s: float | None = None
    """Of a live run: how late the event loop came to its timers, 99th percentile, seconds."""
    stalled_s: float = 0.0
    """Host seconds the run waited for the disk."""
    workers: list[WorkerCost] = []
    """Of a live run: what each worker process cost."""
    skipped_s: dict[str, float] = {}
    """Seconds of recorded waiting that caps left out, by cap: wait, tree idle, system idle."""
    notes: list[str] = []
    """What a reader should know of how it went: figures of servers that could not be had, caches not emptied."""
    torn_bytes: int = 0
    """Of a recovered run: bytes dropped, of a half-written record or of records no table can hold."""
    error: str | None = None
    """Of a failed run: why."""


def this_host() -> dict[str, str | int | None]:
    """What a reader must know of the machine to judge the numbers."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def started(manifest: Manifest) -> Manifest:
    """The manifest as it is first written: start and host filled in where missing, secrets taken out."""
    return structs.replace(
        manifest,
        started=manifest.started or host.stamp(),
        host=manifest.host or this_host(),
        argv=redact_argv(manifest.argv),
        config=redact(manifest.config),
        workload=redact_text(manifest.workload),
        load=redact_text(manifest.load),
    )


_SECRET_WORDS = frozenset({"password", "passwd", "passphrase", "credential", "credentials", "cookie"}) | frozenset(
    {"key", "apikey", "secret", "token", "authorization", "auth"}
)
_HEADERS = frozenset({"H", "header", "headers"})
"""Nobody can tell which header carries a secret, so of each only the name is kept."""
_HEADER_VALUE = re.compile(r"(?<=[:=]).+", re.DOTALL)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LOOKS_SECRET = re.compile(r"\b(?:sk|hf|ghp|gho|glpat|xox[abp])[-_][\w-]{8,}|\bbearer\s+[^\s\"',]+", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_WHOLE_LINE = re.compile(r"((?:proxy-)?authorization|(?:set-)?cookie)([\"']?\s*[:=]\s*[\"']?)[^\n\"']+", re.IGNORECASE)
_NAMED = re.compile(r"([A-Za-z][\w.-]*)[\"']?\s*[:=]\s*[\"']?")
_VALUE = re.compile(r"[^\s\"',;&}]+")


def redact(value: Any) -> Any:
    """A configuration without secrets: what stands under a secret's name, and what looks like one anywhere."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Struct):
        return redact(structs.asdict(value))
    if isinstance(value, Mapping):
        named = {str(name): v for name, v in value.items()}
        return {n: _blank(v) if n in _HEADERS or _is_secret(n, v) else redact(v) for n, v in named.items()}
    if isinstance(value, list | tuple):
        return redact_argv(list(value)) if all(isinstance(v, str) for v in value) else [redact(v) for v in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    return str(value)  # JSON has no inf


def redact_argv(argv: list[str]) -> list[str]:
    """A command line without secrets: `--api-key X`, `--api-key=X`, the values of headers, keys in URLs."""
    out: list[str] = []
    option = ""
    for word in argv:
        name, is_pair, value = word.partition("=")
        if option and not word.startswith("--") and _is_secret(option, word):
            out.append(REDACTED)
        elif option.lstrip("-") in _HEADERS:
            out.append(_HEADER_VALUE.sub(REDACTED, word))
        elif is_pair and name.lstrip("-") in _HEADERS:
            out.append(f"{name}={_HEADER_VALUE.sub(REDACTED, value)}")
        else:
            out.append(redact_text(word))
        option = word if word.startswith("-") and not is_pair else ""
    return out


def redact_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text without what looks like a secret, is one that stands in the environment, or one of `secrets`."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = _WHOLE_LINE.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}", text)
    text = _USERINFO.sub(f"{REDACTED}@", _LOOKS_SECRET.sub(REDACTED, _redact_assigned(text)))
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and _is_secret(name, value):
            text = text.replace(value, REDACTED)
    return text


def _redact_assigned(text: str) -> str:
    """`name: value` and `name=value` without the values of secrets, whatever other names stand before them."""
    out, at = [], 0
    for name in _NAMED.finditer(text):
        value = _VALUE.match(text, name.end())
        if name.start() >= at and value is not None and _is_secret(name[1], value[0]):
            out += [text[at : name.end()], REDACTED]
            at = value.end()
    return "".join([*out, text[at:]])


def _is_secret(name: str, value: Any) -> bool:
    """Whether the last word of a name makes it a secret's: `api_key` is one, not `api_key_env` or `us_per_token`."""
    if value is None or isinstance(value, bool | int | float):
        return False
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", _CAMEL.sub("_", name))]
    return words[-1] in _SECRET_WORDS and words[-2:-1] != ["per"]


def _blank(value: Any) -> Any:
    """The shape of a value without its strings."""
    if isinstance(value, Mapping):
        return {name: _blank(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_blank(v) for v in value]
    return REDACTED if isinstance(value, str) and value else value
