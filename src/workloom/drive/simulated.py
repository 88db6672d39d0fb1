"""The simulated backend: an engine, or a cluster of them, that lives on virtual time.

A call is begun, and a callback hears its end: no task, no future. The engine is looked at only when all that happens at
an instant has happened, and then only when it has news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from workloom import seeds
from workloom.clock import Timer, VirtualClock
from workloom.drive.backend import Ended, Request
from workloom.drive.chunks import chunk_run, chunks
from workloom.drive.template import ServedKeys
from workloom.engine.cluster import Cluster
from workloom.engine.engine import Finished, Steps
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.hints import Hints
from workloom.engine.profile import Profile, Template
from workloom.engine.serving import Serving
from workloom.errors import BackendError, Refused
from workloom.records import ChunkRun, Outcome

__all__ = ["SimulatedBackend", "chunk_run"]

AFTER_EVERYTHING = 1
"""The engine looks at an instant only when all that happens in it has happened."""


class Flight:
    """A call under way."""

    __slots__ = ("by", "on_chunk", "on_end", "over", "prompt_tokens", "request", "sent_ns", "wanted")

    def __init__(
        self,
        by: SimulatedBackend,
        request: Request,
        on_chunk: Callable[[ChunkRun], None],
        on_end: Ended,
        sent_ns: int,
        wanted: int,
    ) -> None:
        self.by, self.request = by, request
        self.on_chunk, self.on_end = on_chunk, on_end
        self.sent_ns, self.wanted = sent_ns, wanted
        self.prompt_tokens = 0
        self.over = False

    def cancel(self) -> None:
        """Give it up."""
        self.by.hang_up(self)


class Means:
    """How many tokens calls of a role gave so far, on average: what a scheduler may expect of the next."""

    def __init__(self) -> None:
        self._by: dict[str, tuple[int, int]] = {}

    def add(self, role: str, tokens: int) -> None:
        count, total = self._by.get(role, (0, 0))
        self._by[role] = count + 1, total + tokens

    def of(self, role: str) -> float | None:
        """None while none has finished."""
        count, total = self._by.get(role, (0, 0))
        return total / count if count else None


class SimulatedBackend:
    """Answers calls from whatever serves. Nothing here waits but for its events.

    `serves` says what chat templates and streams make of prompts and answers, by the model that is asked for and by the
    replica that answers (default: what `engine` serves with, if it says). `served` names the model that a call of
    (agent, model) asks for, `priorities` how urgent a role's calls are. `on_begin` is called with every call.
    """

    def __init__(
        self,
        engine: Serving,
        clock: VirtualClock,
        serves: Profile | Fleet | None = None,
        served: Callable[[str, str], str] | None = None,
        *,
        priorities: Mapping[str, int] | None = None,
        on_begin: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self._priorities = priorities or {}
        self._on_begin = on_begin
        self._clock = clock
        self._fleet = _fleet(engine, serves)
        self._keys: dict[str, ServedKeys] = {}
        self._templates: dict[Template, ServedKeys] = {}
        self._served = served
        self._means = Means()
        self._flights: dict[str, Flight] = {}
        self._timer: Timer | None = None
        self._looking = False
        self._loop = asyncio.get_running_loop()

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        """One call, as :class:`workloom.drive.backend.Backend` says."""
        done: asyncio.Future[Outcome] = self._loop.create_future()

        def ended(end: Outcome | BaseException) -> None:
            if done.done():
                return
            if isinstance(end, Outcome):
                done.set_result(end)
            else:
                done.set_exception(end)

        flight = self.begin(request, on_chunk, ended)
        try:
            return await done
        except asyncio.CancelledError:
            flight.cancel()
            raise

    def begin(self, request: Request, on_chunk: Callable[[ChunkRun], None], on_end: Ended) -> Flight:
        """Begin a call, as :data:`workloom.drive.backend.Begin` says."""
        sent = self._clock.now()
        wanted = request.output_tokens
        if request.stop_after is not None:
            wanted = min(wanted, request.stop_after)
        flight = Flight(self, request, on_chunk, on_end, sent, wanted)
        try:
            hints = self._hints(request)
            key, answer = self._keys_of(hints.model).of(request.prompt, request.repeated)
            flight.prompt_tokens = key.tokens
            self.engine.submit(sent, request.name, key, answer, wanted, hints)
        except Refused as refused:
            self._end(flight, BackendError("context_overflow", str(refused), hint=refused.hint))
            return flight
        except Exception as fault:  # ours: the run is to end with it, and it must hear of the call to end
            self._end(flight, fault)
            return flight
        self._flights[request.name] = flight
        if self._on_begin is not None:
            self._on_begin()
        self._look_later()
        return flight

    def _hints(self, request: Request) -> Hints:
        role = _role(request)
        model = "" if self._served is None else self._served(request.agent, request.model)
        return Hints(
            model=model,
            session=request.session_key,
            role=role,
            priority=self._priorities.get(role, 0),
            expected_output_tokens=self._means.of(role),
            pin_tokens=request.prompt.lead_tokens,
        )

    def hang_up(self, flight: Flight) -> None:
        """A call is cancelled, perhaps at the very instant it finished: what came until then counts."""
        if flight.over:
            return
        now, name = self._clock.now(), flight.request.name
        replica = self.engine.answers(name) if isinstance(self.engine, Cluster) else ""
        self._tell(flight, self.engine.answer_so_far(name, now), replica)
        del self._flights[name]
        self._end(flight, asyncio.CancelledError())
        self.engine.cancel(now, name)
        self._look_later()

    def _end(self, flight: Flight, end: Outcome | BaseException) -> None:
        """Its driver hears of it on a turn of the loop of its own."""
        flight.over = True
        self._loop.call_soon(flight.on_end, end)

    def _tell(self, flight: Flight, tokens: Iterable[Steps], replica: str) -> None:
        on_chunk, merged = flight.on_chunk, self._merged(replica)
        if merged:
            rng = seeds.stream(0, "chunks", flight.request.name)
            for run in chunks(tokens, merged, rng):
                on_chunk(run)
        else:
            for steps in tokens:
                on_chunk(chunk_run(steps))

    def _keys_of(self, model: str) -> ServedKeys:
        """Prompts as those who serve a model see them. Raises Refused when nobody does."""
        keys = self._keys.get(model)
        if keys is None:
            fleet = self._fleet
            template = Template() if fleet is None else fleet.pools[fleet.of(model)[0]].profile.template
            keys = self._keys[model] = self._templates.setdefault(template, ServedKeys(template))
        return keys

    def _merged(self, replica: str) -> tuple[float, ...]:
        """How tokens share chunks on the way from who answers a call."""
        if self._fleet is None:
            return ()
        profile = self._fleet.pools[0].profile
        if len(self._fleet.pools) > 1 and replica and isinstance(self.engine, Cluster):
            profile = self.engine.pool_of(replica).profile
        return profile.front_end.merged_chunks

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._clock.call_at(self._clock.now(), self._look, priority=AFTER_EVERYTHING)

    def _look(self) -> None:
        """Find out when the engine has news."""
        self._looking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.engine.next_ns()
        if at is not None:
            self._timer = self._clock.call_at(max(at, self._clock.now()), self._pump, priority=AFTER_EVERYTHING)

    def _pump(self) -> None:
        self._timer = None
        for finished in self.engine.advance(self._clock.now()):
            flight = self._flights.pop(finished.call, None)
            if flight is not None:
                self._tell(flight, finished.tokens, finished.replica)
                self._end(flight, self._outcome(flight, finished))
        self._look_later()

    def _outcome(self, flight: Flight, finished: Finished) -> Outcome:
        request = flight.request
        self._means.add(_role(request), finished.output_tokens)
        return Outcome(
            done_ns=finished.done_ns,
            sent_ns=flight.sent_ns,
            admitted_ns=finished.admitted_ns,
            prompt_tokens=flight.prompt_tokens,
            output_tokens=finished.output_tokens,
            cached_tokens=finished.cached_tokens,
            finish="hangup" if flight.wanted < request.output_tokens else "length",
            target=finished.replica,
            served_model="" if self._served is None else self._served(request.agent, request.model),
        )


def _role(request: Request) -> str:
    """The kind of agent: what stands before a colon tells several of a kind apart."""
    return request.agent.partition(":")[0]


def _fleet(engine: Serving, serves: Profile | Fleet | None) -> Fleet | None:
    found = serves or getattr(engine, "fleet", None) or getattr(engine, "profile", None)
    return Fleet((Pool(found),)) if isinstance(found, Profile) else found
