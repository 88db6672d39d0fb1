"""One request to a server's own pages, with an end to it whatever the server does."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from workloom.clock import host

MAX_BYTES = 32 << 20
"""A page longer than this is none of ours."""


class Answer(NamedTuple):
    """What a server said. Status 0: nothing; `text` then says why."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows to another page of the server, as some do to `/metrics/`; keys go to nobody else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def root(url: str) -> str:
    """Where the server begins: the URL without `/v1` and a slash at its end."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1"), query="", fragment=""))


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    within_s: float = 5.0,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """The answer to a request; no fault of a server's raises anything. A proxy is not asked for this machine's own."""
    give_up = host.monotonic() + within_s
    local = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    handlers: list[urllib.request.BaseHandler] = [_SameServer()]
    if local:
        handlers.append(urllib.request.ProxyHandler({}))
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    body = b"" if method == "POST" else None
    try:
        request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)
        with urllib.request.build_opener(*handlers).open(request, timeout=within_s) as response:
            return Answer(response.status, _body(response, give_up))
    except urllib.error.HTTPError as fault:
        with fault:
            return Answer(fault.code, f"status {fault.code} {fault.reason}")
    except urllib.error.URLError as fault:
        return Answer(0, _why(fault.reason if isinstance(fault.reason, OSError) else fault))
    except (OSError, HTTPException, ValueError) as fault:
        return Answer(0, _why(fault))


def _body(response: HTTPResponse, give_up: float) -> str:
    """All of it. The time-out of a socket is per read: one that drips would never meet it."""
    parts, size = [], 0
    while part := response.read1(1 << 16):
        size += len(part)
        if size > MAX_BYTES:
            raise ValueError(f"the page is longer than {MAX_BYTES} bytes")
        if host.monotonic() > give_up:
            raise TimeoutError("the page did not come to its end in time")
        parts.append(part)
    if response.length:  # http.client does not mind when read1 meets the end too soon
        raise ConnectionError("the page was cut off")
    return b"".join(parts).decode("utf-8", "replace")


def _why(fault: BaseException) -> str:
    text = str(getattr(fault, "strerror", None) or fault) or type(fault).__name__
    return " ".join(text.split())[:200]


class Asker(NamedTuple):
    """How the pages of one server are asked for."""

    headers: Mapping[str, str] | None = None
    within_s: float = 5.0
    context: ssl.SSLContext | None = None

    def get(self, url: str) -> Answer:
        return ask(url, headers=self.headers, within_s=self.within_s, context=self.context)

    def post(self, url: str) -> Answer:
        return ask(url, method="POST", headers=self.headers, within_s=self.within_s, context=self.context)


def tls(ca: str | None, insecure: bool) -> ssl.SSLContext | None:
    """What certificates are checked by: a file, nothing, or (None) the system's."""
    if insecure:
        return ssl._create_unverified_context()
    return ssl.create_default_context(cafile=ca) if ca else None
