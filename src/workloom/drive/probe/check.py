"""All probes, one after the other: the next never meets the load of the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from workloom.clock import RealClock
from workloom.drive.api import APIS
from workloom.drive.http1 import Endpoint
from workloom.drive.probe import advice, faults, lengths, prompts, server, streams, tools
from workloom.drive.probe.findings import AREAS, Finding, Report, found
from workloom.drive.probe.lab import Lab
from workloom.drive.probe.wire import Wire
from workloom.drive.targets import HttpOptions, header_lines
from workloom.drive.text import Texts
from workloom.errors import BackendError

Probe = Callable[[Lab], Awaitable[list[Finding]]]

_ALWAYS: tuple[Probe, ...] = (
    server.models,
    server.health,
    server.metrics,
    server.tokenize,
    server.reset,
    streams.endpoints,
)
_WHEN_IT_STREAMS: tuple[Probe, ...] = (
    streams.shape,
    lengths.exact,
    streams.chunks,
    prompts.words,
    prompts.cached,
    tools.tools,
    faults.model_name,
    faults.unknown_field,
    faults.dropped,
    faults.too_long,
)

_SECRET = 6
"""Characters from which a key or a header's value is worth hiding; shorter ones are parts of common words."""


async def check(options: HttpOptions, clock: RealClock, timeout_s: float = 30.0) -> Report:
    """Find out what the server at the first of the URLs supports, asked as a run with these options would.

    `timeout_s` is that of each exchange; without a model the first one listed is asked for; `salt` makes the texts
    unlike those of other checks. Raises a BackendError when there is nothing to talk to; whatever else goes wrong is a
    finding.
    """
    endpoint = options.endpoints()[0]
    headers = {name: header_lines(options, api, endpoint) for name, api in APIS.items()}
    wire = Wire(endpoint, headers["chat"], clock, timeout_s)
    lab = Lab(wire, endpoint.path, options.model, Texts(options.salt), headers, options.body)
    lab.known.limit_field = options.limit_field
    began_s = wire.now_s()
    try:
        await _first_contact(lab, endpoint)
        findings = []
        for probe in _ALWAYS:
            findings += await _safely(probe, lab)
        for probe in _WHEN_IT_STREAMS if lab.known.primary is not None else ():
            findings += await _safely(probe, lab)
    finally:
        wire.close()
    return _report(options, lab, endpoint, findings, wire.now_s() - began_s)


async def _first_contact(lab: Lab, endpoint: Endpoint) -> None:
    """One request that any HTTP server answers: without it the other probes would only wait, one after the other."""
    reply = await lab.get(f"{lab.base}/models")
    if reply.status:
        return
    if reply.ending == "no connection":
        raise BackendError("connect", reply.error or "no connection", hint=reply.hint)
    raise BackendError(
        "connect",
        f"{endpoint.authority} takes connections and gives no HTTP answer: {reply.error}",
        hint=reply.hint or f"is it the port of such a server? If so, try {'http' if endpoint.tls else 'https'}://",
    )


async def _safely(probe: Probe, lab: Lab) -> list[Finding]:
    """The findings of a probe. Servers say what no one thought of: one that stumbles says so, the rest go on."""
    try:
        return await probe(lab)
    except Exception as fault:
        name = f"{probe.__module__.rsplit('.', 1)[-1]}.{getattr(probe, '__name__', 'probe')}"
        return [found("server", name, "unknown", f"the probe stumbled: {type(fault).__name__}: {fault}")]


def _report(options: HttpOptions, lab: Lab, endpoint: Endpoint, findings: list[Finding], took_s: float) -> Report:
    known, url = lab.known, options.urls[0]
    secrets = [text for text in (options.api_key, *options.headers.values()) if text and len(text) >= _SECRET]
    findings = sorted((_without(finding, secrets) for finding in findings), key=lambda one: AREAS.index(one.area))
    by_name = {finding.name: finding for finding in findings}
    reason, hint = advice.drivable(known, lab.model)
    chosen: list[str] = []
    if reason is None:
        chosen = [f"--url {url.rstrip('/').removesuffix(endpoint.path)}{lab.base}"]
        chosen += advice.options(known, lab.model)
    family = known.family or known.owner
    if known.owner == "workloom":
        family = "workloom serve"  # its metrics have vLLM's names
    return Report(
        url=url,
        family=family,
        model=lab.model,
        models=known.models,
        max_model_len=known.max_model_len,
        findings=findings,
        drivable=reason is None,
        reason=reason,
        hint=hint,
        options=chosen,
        advice=advice.sentences(known, by_name),
        took_s=round(took_s, 3),
    )


def _without(finding: Finding, secrets: list[str]) -> Finding:
    """A finding without secrets that the server may have said back."""
    evidence = finding.evidence
    for secret in secrets:
        evidence = evidence.replace(secret, "***")
    return replace(finding, evidence=evidence)
