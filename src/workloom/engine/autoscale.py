"""When a pool grows or shrinks: a look every so often at what is so at that moment. Pure: the cluster acts."""

from __future__ import annotations

from workloom.engine.fleet import Autoscale

PER_S = 1_000_000_000


class Scaler:
    """The clock and the rules of one pool. Instants are nanoseconds."""

    def __init__(self, rules: Autoscale) -> None:
        self.rules = rules
        self.every_ns = max(1, round(rules.every_s * PER_S))
        self.start_ns = round(rules.start_s * PER_S)
        self.next_ns = self.every_ns
        """When it looks next."""
        self._rests_until_ns = 0

    def look(self, replicas: int, outstanding: int, kv_usage: float) -> int:
        """Replicas more (1), fewer (-1) or as many (0), at :attr:`next_ns`; moves that on.

        `replicas` are those that take calls or start; `outstanding` their calls in flight together, `kv_usage` the mean
        over those that take calls.
        """
        at_ns, rules = self.next_ns, self.rules
        self.next_ns += self.every_ns
        if at_ns < self._rests_until_ns:
            return 0
        each = outstanding / replicas
        step = 0
        if each > rules.up_outstanding or (rules.up_kv is not None and kv_usage > rules.up_kv):
            step = int(replicas < rules.most)
        elif each < rules.down_outstanding and (rules.up_kv is None or kv_usage < rules.down_kv):
            step = -int(replicas > rules.least)
        if step:
            self._rests_until_ns = at_ns + round(rules.cool_down_s * PER_S)
        return step

    def skip(self, to_ns: int) -> None:
        """Nothing can change before an instant: leave out the looks until then."""
        if self.next_ns < to_ns:
            self.next_ns += -((self.next_ns - to_ns) // self.every_ns) * self.every_ns
