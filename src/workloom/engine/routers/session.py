"""All calls of a session to one replica."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from workloom.engine.hints import Hints
from workloom.engine.routers.seen import Seen, least_loaded
from workloom.prefix import Key

R = TypeVar("R", bound=Seen)
MOST = 1 << 16
"""Sessions that are remembered; the one that was seen the longest ago is forgotten first."""


class Session:
    """A session's first call goes where the fewest calls are out, the others follow it while the replica is there."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._home: OrderedDict[str, int] = OrderedDict()

    def choose(self, replicas: Sequence[R], at_ns: int, prompt: Key, hints: Hints) -> R:
        if not hints.session:
            return least_loaded(replicas)
        home = self._home.get(hints.session)
        chosen = next((replica for replica in replicas if replica.number == home), None)
        if chosen is None:
            chosen = least_loaded(replicas)
            self._home[hints.session] = chosen.number
            if len(self._home) > self._most:
                self._home.popitem(last=False)
        self._home.move_to_end(hints.session)
        return chosen

    def gone(self, number: int) -> None:
        pass
