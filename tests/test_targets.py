"""Several servers, several models, retries, time-outs, proxies, certificates, and the debug trace."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from misbehaving import (
    CLOSE,
    DONE,
    EVENTS,
    GOOD,
    HEAD,
    HOLD,
    chunk,
    connect,
    event,
    live,
    plain,
    request,
    said,
    serving,
    stream,
    talk,
)

from workloom.clock import RealClock, Timer
from workloom.drive.debug import DebugTrace, Exchange
from workloom.drive.http1 import Endpoint
from workloom.drive.targets import HttpOptions
from workloom.drive.tunnel import Proxy, proxy_from
from workloom.errors import BackendError, UsageError
from workloom.records import ChunkRun

FIRST_BACKOFF_NS = 500_000_000

# --- several servers and models


def test_sessions_are_dealt_to_servers_in_turn_and_stay() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([GOOD]) as one, serving([GOOD]) as two:
            backend = connect([one.port, two.port], clock)
            targets = []
            for k in (0, 1, 2, 3, 1, 0):
                outcome = await backend.call(request(instance=k), lambda run: None)
                targets.append(outcome.target.removesuffix("/v1").rpartition(":")[2])
            assert targets == [str(port) for port in (one.port, two.port, one.port, two.port, two.port, one.port)]
            assert (len(one.heard), len(two.heard), backend.connects) == (3, 3, 2)
            backend.close()

    live(main)


def test_one_server_is_no_target_to_tell_apart() -> None:
    assert talk([GOOD]).outcome.target == ""


@pytest.mark.parametrize(
    ("agent", "model", "served"),
    [("main", "opus", "m"), ("explore", "opus", "small"), ("main", "haiku", "tiny"), ("explore", "haiku", "small")],
)
def test_models_are_mapped_by_role_then_by_the_traces_name(agent: str, model: str, served: str) -> None:
    ask = request(agent=agent, model=model)
    result = talk([GOOD], ask=ask, models={"explore": "small", "haiku": "tiny"})
    assert json.loads(result.server.heard[0])["model"] == served == result.outcome.served_model


def test_the_probe_asks_every_server_for_every_model() -> None:
    def listing(*names: str, length: int) -> bytes:
        return plain(json.dumps({"data": [{"id": name, "max_model_len": length} for name in names]}).encode())

    async def main(clock: RealClock) -> None:
        both = listing("m", "small", length=9000), listing("small", "m", length=8000)
        async with serving([both[0]]) as one, serving([both[1]]) as two, serving([listing("m", length=1)]) as three:
            good = await connect([one.port, two.port], clock, models={"x": "small"}).probe()
            assert (good.models, good.warning, good.max_model_len) == (["m", "small"], None, 8000)
            bad = await connect([one.port, three.port], clock, models={"x": "small"}).probe()
            assert bad.models == ["m"] and "'small'" in (bad.warning or "")

    live(main)


def test_affinity_headers_are_equal_within_a_session_and_unlike_elsewhere() -> None:
    names = ("X-Session-ID", "X-SMG-Routing-Key")

    def keys(session: str, salt: int) -> list[str]:
        head = (
            talk([GOOD], ask=request(session_key=session), affinity_headers=names, salt=salt).server.heads[0].decode()
        )
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        return [lines[name] for name in names]

    one = keys("s.0", 1)
    assert one[0] == one[1] == keys("s.0", 1)[0]
    assert len({one[0], keys("s.1", 1)[0], keys("s.0", 2)[0]}) == 3
    with pytest.raises(UsageError):
        talk([GOOD], affinity_headers=("X bad",))


def test_what_a_manifest_keeps_holds_no_key() -> None:
    public = HttpOptions(urls=("http://h/v1",), model="m", api_key="hunter2").public()
    assert "hunter2" not in json.dumps(public) and public["model"] == "m" and list(public["urls"]) == ["http://h/v1"]


# --- retries and time-outs


class Skipping(RealClock):
    """Waits for nothing, and remembers what it was to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    def call_at(self, at_ns: int, callback: Callable[..., None], *args: object) -> Timer:
        self.waits_s.append(round((at_ns - self.now()) / 1e9, 2))
        return super().call_at(self.now(), callback, *args)


def persist(*scripts: list[bytes | str], retries: int) -> tuple[Any, list[float], list[ChunkRun], int]:
    """An outcome or a fault, the waits between tries, the chunks, and the number of requests."""

    async def main(clock: RealClock) -> tuple[Any, list[float], list[ChunkRun], int]:
        async with serving(*scripts) as server:
            skipping, chunks = Skipping(), []
            backend = connect(server.port, skipping, retries=retries)
            try:
                found: Any = await backend.call(request(), chunks.append)
            except BackendError as fault:
                found = fault
            assert backend.retried == len(skipping.waits_s)
            return found, skipping.waits_s, chunks, len(server.heard)

    found: tuple[Any, list[float], list[ChunkRun], int] = live(main)
    return found


BUSY = plain(b"", "503 Busy")


def test_retries_are_off_unless_asked_for() -> None:
    fault, waits, _, requests = persist([BUSY], [GOOD], retries=0)
    assert (fault.status, fault.retries, waits, requests) == (503, 0, [], 1)


def test_a_retry_that_helps_is_counted_and_the_call_counts_from_the_last_time_it_left() -> None:
    outcome, waits, chunks, requests = persist([CLOSE], [BUSY], [plain(b"", "429 Slow")], [GOOD], retries=5)
    assert (outcome.retries, outcome.answer, requests) == (3, "a b c", 4)
    assert waits == pytest.approx([0.5, 1.0, 2.0], abs=0.02)
    assert outcome.sent_ns < chunks[0].first_ns


def test_retries_end_with_the_last_fault() -> None:
    fault, waits, _, requests = persist([BUSY], [BUSY], [plain(b"", "500 Oh")], retries=2)
    assert (fault.status, fault.retries, len(waits), requests) == (500, 2, 2, 3)


def test_the_servers_own_wish_is_followed_within_reason() -> None:
    later = [plain(b"", "429 Slow", f"Retry-After: {wish}\r\n") for wish in ("7", "100000")]
    _, waits, _, _ = persist([later[0]], [later[1]], [GOOD], retries=2)
    assert waits == pytest.approx([7, 60], abs=0.02)


@pytest.mark.parametrize(
    "script",
    [
        [plain(b"", "404 No")],
        [plain(b'{"error":"maximum context length"}', "400 Bad")],
        [stream(event({}, "stop"), DONE)],
        [stream(b"data: {nonsense\n\n")],
        [HEAD + chunk(EVENTS[1]), CLOSE],
        [stream(EVENTS[1], b'data: {"error":{"message":"oh","code":503}}\n\n')],
    ],
    ids=["404", "overflow", "empty", "malformed", "truncated", "error behind a chunk"],
)
def test_what_would_fail_again_or_has_begun_is_not_tried_again(script: list[bytes | str]) -> None:
    fault, waits, _, requests = persist(script, [GOOD], retries=3)
    assert (fault.retries, waits, requests) == (0, [], 1)


def test_nobody_listening_is_tried_again() -> None:
    async def main(clock: RealClock) -> None:
        listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        listener.close()
        await listener.wait_closed()
        skipping = Skipping()
        with pytest.raises(BackendError) as caught:
            await connect(port, skipping, retries=2).call(request(), lambda run: None)
        assert (caught.value.kind, caught.value.retries, len(skipping.waits_s)) == ("connect", 2, 2)

    live(main)


def test_a_call_whose_first_byte_does_not_come_in_time_is_given_up() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([HOLD]) as server:
            backend = connect(server.port, clock, first_byte_timeout_s=0.05)
            with pytest.raises(BackendError, match=r"no byte within 0.05 s") as caught:
                await backend.call(request(), lambda run: None)
            await server.gone.wait()
            assert caught.value.kind == "timeout" and caught.value.sent_ns is not None
        async with serving([HEAD, HOLD]) as server:
            backend = connect(server.port, clock, first_byte_timeout_s=0.05)
            call = asyncio.create_task(backend.call(request(), lambda run: None))
            await asyncio.sleep(0.15)
            assert not call.done()  # its first byte came
            call.cancel()

    live(main)


def test_a_connection_that_takes_too_long_is_a_connect_error() -> None:
    async def main(clock: RealClock) -> None:
        async def never(*args: object, **options: object) -> None:
            await asyncio.Event().wait()

        loop = asyncio.get_running_loop()
        pool = connect(9, clock, connect_timeout_s=0.05)._lanes[0].pool
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "_open", never)
            with pytest.raises(BackendError, match=r"no connection within 0.05 s") as caught:
                await pool.connect()
        assert caught.value.kind == "connect" and loop.is_running()

    live(main)


# --- what a call took


def test_bytes_and_handling_are_counted() -> None:
    result = talk([GOOD], calls=2)
    outcome, server, backend = result.outcome, result.server, result.backend
    assert outcome.bytes_sent == len(server.heads[1]) + len(server.heard[1])
    assert outcome.bytes_received == len(GOOD)
    assert backend.traffic.sent == 2 * outcome.bytes_sent and backend.traffic.received == 2 * len(GOOD)
    assert backend.handling_ns > 0


# --- proxies


class Forward:
    """A proxy: it keeps the heads it gets, and lets connections through to where they want to go."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            writer.write(self.answer)
            if b" 200 " not in self.answer:
                writer.close()
                return
            host, _, port = target.decode().rpartition(":")
        else:
            end = Endpoint.parse(target.decode())
            host, port = end.host, str(end.port)
        up, down = await asyncio.open_connection(host, int(port))
        if method != b"CONNECT":
            down.write(head)
        await asyncio.gather(pump(reader, down), pump(up, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def test_plain_http_goes_through_a_proxy_by_its_whole_url() -> None:
    async def main(clock: RealClock) -> None:
        forward = Forward()
        listener = await asyncio.start_server(forward.handle, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with serving([GOOD]) as server:
            backend = connect(server.port, clock, proxy=f"http://127.0.0.1:{port}")
            outcome = await backend.call(request(), lambda run: None)
            url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
            assert outcome.answer == "a b c" and forward.heads[0].startswith(f"POST {url} HTTP/1.1\r\n".encode())
            backend.close()
        listener.close()

    live(main)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate of 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


def test_a_file_of_certificates_is_trusted(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    async def main(clock: RealClock) -> None:
        async with serving([GOOD], tls=server_tls(certificate)) as server:
            backend = connect(server.port, clock, scheme="https", ca_file=str(certificate[1]))
            assert (await backend.call(request(), lambda run: None)).answer == "a b c"
            backend.close()

    live(main)
    for path in (tmp_path / "none", certificate[0]):
        with pytest.raises(UsageError, match="certificates"):
            Endpoint.parse("https://h/v1", ca_file=str(path))


def test_tls_goes_through_a_tunnel(certificate: tuple[Path, Path]) -> None:
    async def main(clock: RealClock) -> None:
        forward = Forward()
        listener = await asyncio.start_server(forward.handle, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with serving([GOOD], tls=server_tls(certificate)) as server:
            options = {"scheme": "https", "ca_file": str(certificate[1]), "proxy": f"http://127.0.0.1:{port}"}
            backend = connect(server.port, clock, api_key="hunter2", **options)
            for reused in (False, True):
                outcome = await backend.call(request(), lambda run: None)
                assert (outcome.answer, outcome.connection_reused) == ("a b c", reused)
            assert forward.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n".encode())
            assert b"hunter2" not in forward.heads[0] and b"hunter2" in server.heads[0]
            backend.close()
        listener.close()

    live(main)


def test_a_proxy_that_lets_nobody_through_is_a_connect_error() -> None:
    async def main(clock: RealClock) -> None:
        forward = Forward(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        listener = await asyncio.start_server(forward.handle, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        backend = connect(9, clock, scheme="https", proxy=f"http://127.0.0.1:{port}")
        with pytest.raises(BackendError, match=r"by way of the proxy .*407") as caught:
            await backend.call(request(), lambda run: None)
        assert caught.value.kind == "connect"
        listener.close()

    live(main)


ENVIRON = {
    "HTTP_PROXY": "http://user:p%40ss@plain.example:3128",
    "https_proxy": "secure.example:8080",
    "NO_PROXY": "internal.example, .corp.example,10.0.0.0/8, other.example:8443",
}


@pytest.mark.parametrize(
    ("host", "port", "tls", "proxy"),
    [
        ("api.example", 80, False, "plain.example"),
        ("api.example", 443, True, "secure.example"),
        ("internal.example", 80, False, None),
        ("a.internal.example", 80, False, None),
        ("notinternal.example", 80, False, "plain.example"),
        ("x.corp.example", 443, True, None),
        ("10.1.2.3", 80, False, None),
        ("11.1.2.3", 80, False, "plain.example"),
        ("other.example", 8443, True, None),
        ("other.example", 443, True, "secure.example"),
        ("127.0.0.1", 80, False, None),
        ("localhost", 443, True, None),
        ("::1", 80, False, None),
    ],
)
def test_the_environment_names_the_proxy(host: str, port: int, tls: bool, proxy: str | None) -> None:
    found = proxy_from(ENVIRON, host, port, tls)
    assert (found.host if found is not None else None) == proxy


def test_a_proxys_password_comes_from_the_environment_alone() -> None:
    assert proxy_from(ENVIRON, "h", 80, False) == Proxy("plain.example", 3128, "Basic dXNlcjpwQHNz")
    assert proxy_from(ENVIRON | {"no_proxy": "*"}, "h", 80, False) is None
    assert proxy_from({"all_proxy": "http://all.example"}, "h", 80, True) == Proxy("all.example", 80)
    given = HttpOptions(urls=("http://h/v1",), model="m", proxy="http://user:hunter2@p:1")
    for fails in (given.endpoints, lambda: proxy_from({"http_proxy": "socks5://user:hunter2@p"}, "h", 80, False)):
        with pytest.raises(UsageError) as caught:
            fails()
        assert "hunter2" not in str(caught.value)
    assert HttpOptions(urls=("http://h/v1",), model="m", proxy="none").endpoints(ENVIRON)[0].proxy is None


def test_an_authorization_for_a_proxy_goes_with_plain_http_alone(certificate: tuple[Path, Path]) -> None:
    from workloom.drive.targets import header_lines

    options = HttpOptions(urls=("http://h/v1", "https://h/v1"), model="m")
    plainly, secure = (
        header_lines(options, options.speaks(), end) for end in options.endpoints(ENVIRON | {"https_proxy": "u:p@s:1"})
    )
    assert b"Proxy-Authorization: Basic" in plainly and b"Proxy-Authorization" not in secure


# --- the debug trace


def test_the_debug_trace_holds_all_that_was_said(tmp_path: Path) -> None:
    ids = [
        event({"role": "assistant"}, prompt_token_ids=[1, 2, 3]),
        event({"reasoning": "hm"}),
        b'data: {"choices":[{"delta":{"content":"so"},"token_ids":[7,8],"finish_reason":"stop"}]}\n\n',
        DONE,
    ]

    async def main(clock: RealClock) -> list[int]:
        path = tmp_path / "debug.jsonl"
        trace = DebugTrace(path)
        async with serving([HEAD, *map(chunk, ids), b"0\r\n\r\n"], [BUSY], [HEAD, chunk(EVENTS[1]), HOLD]) as server:
            backend = connect(server.port, clock, debug=trace, api_key="hunter2")
            chunks: list[ChunkRun] = []
            await backend.call(request(), chunks.append)
            with pytest.raises(BackendError):
                await backend.call(request(), chunks.append)
            came = asyncio.Event()
            call = asyncio.create_task(backend.call(request(), lambda run: came.set()))
            await came.wait()
            call.cancel()
            await asyncio.wait([call])
            heard = [json.loads(body) for body in server.heard]
        trace.close()
        assert b"hunter2" not in path.read_bytes()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["request"] for line in lines] == heard
        one, two, three = lines
        assert (one["call"], one["answer"], one["reasoning"], one["finish"]) == ("0/a", "so", "hm", "stop")
        assert (one["prompt_token_ids"], one["token_ids"]) == ([1, 2, 3], [7, 8])
        assert "".join(text for _, text in one["reads"]).encode() == b"".join(ids)
        assert two["status"] == 503 and "503" in two["error"] and three["error"] == "cancelled"
        return [one["sent_ns"], chunks[0].first_ns, *(at_ns for at_ns, _ in one["reads"])]

    sent_ns, first_ns, *reads = live(main)
    assert sent_ns < first_ns and first_ns in reads and reads == sorted(reads)


def test_without_a_debug_trace_nothing_is_kept() -> None:
    kept: list[Exchange] = []
    assert talk([GOOD], debug=kept.append).outcome.answer == "a b c" and len(kept) == 1
    assert talk([stream(*said("x"), event({}, "stop"), DONE)]).backend.debug is None
