"""The run's side of the scraper: starts its process, reads its lines, ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from workloom.clock import host
from workloom.drive.scrape.lines import HEADERS_VARIABLE, LAST_S, Line
from workloom.records import ServerSample

Sink = Callable[[ServerSample], None]
MISSED_SHARE = 0.05
"""Of the scrapes due: more left out than this are told."""
HELD_LINES = 10_000
"""Lines kept until the run's time begins; the oldest go first."""


class Target(Struct):
    """What became of one URL."""

    url: str
    page: str | None = None
    """Where its figures were found."""
    families: list[str] = []
    scrapes: int = 0
    """That brought figures."""
    failures: int = 0
    missed: int = 0
    """Left out because the one before took too long."""
    bad_lines: int = 0
    """Lines of known figures that could not be read, of all scrapes."""
    last_fault: str | None = None
    longest_s: float = 0.0

    def note(self) -> str | None:
        """What a user should know of it; None when all went well."""
        if not self.scrapes:
            return f"no figures of {self.url}: {self.last_fault or 'no answer'}"
        parts = [f"{self.failures} of {self.scrapes + self.failures} scrapes failed, the last: {self.last_fault}"]
        parts = parts if self.failures else []
        due = self.scrapes + self.failures + self.missed
        if self.missed > MISSED_SHARE * due:
            parts.append(f"{self.missed} of {due} scrapes left out, the slowest took {self.longest_s:.2f} s")
        parts += [f"{self.bad_lines} lines could not be read"] if self.bad_lines else []
        return f"{self.url}: {'; '.join(parts)}" if parts else None


class Scraped(Struct):
    """What a scraper has to say of its work."""

    targets: list[Target] = []
    samples: int = 0
    fault: str | None = None
    """Of the scraper itself."""

    def notes(self) -> list[str]:
        """One line each for what did not go well."""
        return [note for target in self.targets if (note := target.note())] + ([self.fault] if self.fault else [])


class Scraper:
    """Figures of servers, once a second, without work on the run's event loop.

    `urls` are those of the API (with or without `/v1`) or of pages (`.../metrics`). Lines are kept until `begin` says
    when the run's time began; from then on samples go to `sink`, **on a thread of the scraper's own**. `headers` (keys)
    go into the environment of the process and nowhere else, and to the servers of `keyed` alone where some are named.
    Nothing a server does raises anything here.
    """

    def __init__(
        self,
        urls: Sequence[str],
        sink: Sink,
        *,
        headers: Mapping[str, str] | None = None,
        keyed: Sequence[str] = (),
        every_s: float = 1.0,
        gpu: bool = False,
        ca: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._sink = sink
        self._headers = dict(headers or {})
        self._argv = ["--every", str(every_s), *(["--gpu"] if gpu else []), *(["--insecure"] if insecure else [])]
        self._argv += [word for url in keyed for word in ("--keyed", url)]
        self._argv += [*(["--ca", ca] if ca else []), "--", *dict.fromkeys(urls)]
        names = [*dict.fromkeys(urls), *(["gpu"] if gpu else [])]
        self._targets = {url: Target(url) for url in names}
        self._origin_ns: int | None = None
        self._held: list[Line] = []
        self._samples = 0
        self._fault: str | None = None
        self._broken: Exception | None = None
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process; returns at once."""
        environment = dict(os.environ)
        if self._headers:
            environment[HEADERS_VARIABLE] = msgspec.json.encode(self._headers).decode()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workloom.drive.scrape", *self._argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the run; the end of stdin ends this one
            )
        except OSError as fault:
            self._fault = f"the scraper could not be started: {fault.strerror}"
            self._first.set()
            return
        self._reader = threading.Thread(target=self._read, name="workloom-scraper", daemon=True)
        self._reader.start()

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until every URL has been asked once; False when the time was not enough."""
        return self._first.wait(timeout_s)

    def begin(self, origin_ns: int) -> None:
        """The run's time began when :func:`workloom.clock.raw_ns` showed this (`RealClock.origin`).

        Samples from before have negative instants: they are where the counters stood.
        """
        with self._lock:
            self._origin_ns = origin_ns
            held, self._held = self._held, []
            for line in held:
                self._hand_on(line, origin_ns)

    def mark(self) -> None:
        """Scrape now, for an edge of the window; returns at once."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(b"now\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                self._fault = self._fault or "the scraper's process ended early"

    def stop(self) -> Scraped:
        """A last scrape, then the end; takes 2 s at the longest where a server is dead. Raises what the sink raised."""
        if self._process is not None and self._reader is not None:
            self._end(self._process, self._reader)
            self._process = None
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        return Scraped(list(self._targets.values()), self._samples, self._fault)

    def _end(self, process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            self._fault = self._fault or "the scraper's process ended early"
        give_up = host.monotonic() + 2 * LAST_S + 1.0
        reader.join(max(0.0, give_up - host.monotonic()))
        try:
            process.wait(max(0.0, give_up - host.monotonic()))
        except subprocess.TimeoutExpired:
            self._fault = self._fault or "the scraper's process did not end by itself"
            process.kill()
            process.wait()
        reader.join()
        process.stdout.close()
        if process.returncode != 0:
            self._fault = self._fault or f"the scraper's process ended with code {process.returncode}"

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        decode = msgspec.json.Decoder(Line).decode
        try:
            for text in self._process.stdout:
                line = decode(text)
                with self._lock:
                    self._note(line)
                    if self._origin_ns is None:
                        self._held.append(line)
                        del self._held[:-HELD_LINES]
                    else:
                        self._hand_on(line, self._origin_ns)
        except msgspec.DecodeError as fault:
            self._fault = f"the scraper said what is no line of it: {fault}"
        finally:
            self._first.set()

    def _note(self, line: Line) -> None:
        target = self._targets.get(line.url)
        if target is None:
            self._fault = line.fault
            return
        target.missed += line.missed
        target.bad_lines += line.bad_lines
        target.longest_s = max(target.longest_s, line.took_s)
        target.page = line.page or target.page
        target.families += [name for name in line.families if name not in target.families]
        if line.fault is not None:
            target.failures += 1
            target.last_fault = line.fault
        elif line.page is not None:
            target.scrapes += 1
        if all(each.scrapes or each.failures for each in self._targets.values()):
            self._first.set()

    def _hand_on(self, line: Line, origin_ns: int) -> None:
        if self._broken is not None:  # goes on reading, so that the process can end
            return
        try:
            for name, replica, value, at_ns in line.rows:
                self._sink(ServerSample(at_ns - origin_ns, name, value, replica))
        except Exception as fault:  # raised by stop, on the run's own thread
            self._broken = fault
        self._samples += len(line.rows)
