"""The scraper's process: one thread a URL asks for its page at absolute instants and writes what is new on stdout."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import cache

import msgspec

from workloom.clock import NS, raw_ns, to_ns
from workloom.drive.scrape.families import FAMILIES, GAUGES, UP, terms
from workloom.drive.scrape.fetch import ask, root
from workloom.drive.scrape.lines import LAST_S, Line
from workloom.drive.scrape.page import Page, read
from workloom.drive.scrape.power import PowerMeter

PAGES = ("/metrics", "/prometheus/metrics")
"""Where pages are: at the root; TensorRT-LLM has JSON there and its page one deeper."""
_encode = msgspec.json.Encoder().encode
Emit = Callable[[Line], None]
_Row = tuple[str, str, float, int]


class Changes:
    """Leaves out what stayed as it was: of a counter only the first and the last of equal values are written.

    Gauges are always written: where they are missing the server was not heard.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._held: dict[tuple[str, str], int] = {}

    def add(self, at_ns: int, rows: list[tuple[str, str, float]], always: Callable[[str], bool]) -> list[_Row]:
        out: list[_Row] = []
        for name, replica, value in rows:
            key = name, replica
            if not always(name) and self._last.get(key) == value:
                self._held[key] = at_ns
                continue
            if (held := self._held.pop(key, None)) is not None:
                out.append((name, replica, self._last[key], held))
            self._last[key] = value
            out.append((name, replica, value, at_ns))
        return out

    def rest(self) -> list[_Row]:
        """What is held back still."""
        out = [(name, replica, self._last[name, replica], at) for (name, replica), at in self._held.items()]
        self._held.clear()
        return out


class Follower(threading.Thread):
    """Asks one server, tick after tick, until it is stopped; then once more."""

    def __init__(
        self, url: str, emit: Emit, *, every_s: float, headers: Mapping[str, str], context: ssl.SSLContext | None
    ) -> None:
        super().__init__(name=f"scrape {url}", daemon=True)
        self.url, self._emit, self._every_ns = url, emit, to_ns(every_s)
        self._headers, self._context = {"Accept": "text/plain;version=0.0.4", **headers}, context
        self._pages = [url] if url.rstrip("/").endswith("/metrics") else [root(url) + page for page in PAGES]
        self._page: str | None = None
        self._where = url.partition("//")[2].partition("/")[0].rpartition("@")[2] or url
        self._changes = Changes()
        self._poked = threading.Event()
        self._stopped = False

    def poke(self, *, stop: bool = False) -> None:
        """Scrape now; with `stop` for the last time."""
        self._stopped = self._stopped or stop
        self._poked.set()

    def run(self) -> None:
        begin, tick = raw_ns(), 0  # tick: the number of the scrape that is due at begin + tick * every
        asked = False
        while not self._stopped:
            self._scrape(max(5 * self._every_ns / NS, LAST_S))
            now = (raw_ns() - begin) // self._every_ns
            if now > tick and not asked:
                self._emit(Line(self.url, raw_ns(), missed=now - tick))
            tick = now + 1
            asked = self._poked.wait(max(0.0, (begin + tick * self._every_ns - raw_ns()) / NS))
            self._poked.clear()
        self._scrape(LAST_S)
        if rest := self._changes.rest():
            self._emit(Line(self.url, raw_ns(), rows=rest))

    def _scrape(self, within_s: float) -> None:
        """The page found before, or the first that holds something known."""
        fault = ""
        for page in self._pages if self._page is None else [self._page]:
            asked = raw_ns()
            answer = ask(page, headers=self._headers, within_s=within_s, context=self._context)
            if not answer.ok:
                fault = fault or f"{page}: {answer.text}"
                continue
            got = raw_ns()
            found = read(answer.text)
            if not found.known:
                fault = fault or f"{page} holds no figures of a known server"
                continue
            self._page = page
            self._emit(self._line(found, (asked + got) // 2, (got - asked) / NS))
            return
        at_ns = raw_ns()
        self._emit(Line(self.url, at_ns, [(UP, self._where, 0.0, at_ns)], fault=fault))

    def _line(self, found: Page, at_ns: int, took_s: float) -> Line:
        rows = [(name, self._where + (engine and f"/{engine}"), value) for name, engine, value in found.rows]
        new = self._changes.add(at_ns, [(UP, self._where, 1.0), *rows], is_gauge)
        return Line(self.url, at_ns, new, self._page, found.families, took_s, found.bad_lines)


def is_gauge(name: str) -> bool:
    """Whether a kept name may fall without a restart."""
    return name == UP or name in gauges()


@cache
def gauges() -> frozenset[str]:
    """Kept names of all gauges."""
    return frozenset(
        term.name for family in FAMILIES for figure in GAUGES for sums in terms(family, figure) for term in sums
    )


class PowerFollower(threading.Thread):
    """Reads the GPUs of this machine, tick after tick."""

    def __init__(self, meter: PowerMeter, emit: Emit, *, every_s: float) -> None:
        super().__init__(name="scrape power", daemon=True)
        self._meter, self._emit, self._every_ns = meter, emit, to_ns(every_s)
        self._poked = threading.Event()
        self._stopped = False

    def poke(self, *, stop: bool = False) -> None:
        """Read now; with `stop` for the last time."""
        self._stopped = self._stopped or stop
        self._poked.set()

    def run(self) -> None:
        begin, tick = raw_ns(), 0
        while True:
            at_ns = raw_ns()
            rows = [(name, gpu, value, at_ns) for name, gpu, value in self._meter.read()]
            self._emit(Line("gpu", at_ns, rows, "nvml", ["gpu"], fault=None if rows else self._meter.fault))
            if self._stopped:
                return
            tick = (raw_ns() - begin) // self._every_ns + 1
            if self._poked.wait(max(0.0, (begin + tick * self._every_ns - raw_ns()) / NS)):
                self._poked.clear()


class Out:
    """Lines to the run's process, whole ones whoever writes; ends the process when nobody reads any more."""

    def __init__(self, descriptor: int, parent: int) -> None:
        self._descriptor, self._parent = descriptor, parent
        self._lock = threading.Lock()

    def __call__(self, line: Line) -> None:
        data = memoryview(_encode(line) + b"\n")
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                os._exit(0)
        if os.getppid() != self._parent:
            os._exit(0)
