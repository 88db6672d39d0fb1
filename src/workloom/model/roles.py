"""Who does the work: calls, tokens, time, KV and cost by agent role and by model, and how steady their shares are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from msgspec import Struct

from workloom.model.critical import critical_path, legs
from workloom.model.facts import CallFacts, SessionFacts


class Prices(Struct, frozen=True):
    """What tokens cost, in prices of a computed prompt token: an assumption, named wherever it is used.

    Price lists of hosted models have about these proportions. An infinite cache of prompts and answers says which
    prompt tokens are cached.
    """

    computed: float = 1.0
    cached: float = 0.1
    output: float = 5.0

    def cost(self, computed_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """The cost of a call."""
        return self.computed * computed_tokens + self.cached * cached_tokens + self.output * output_tokens


DUST = 1e-9
"""A variation below it is rounding."""


class Amount(Struct, frozen=True):
    """How much of one measure a role has, and its share within sessions.

    `share_mean` and `share_cv` are over the `sessions` that have any of the measure; a session without the role
    counts with share 0. `present_mean` and `present_cv` are over those of them with the role alone. A small cv
    (standard deviation / mean; None for fewer than two sessions) means that the share is the same everywhere.
    """

    total: float
    share: float | None
    sessions: int
    share_mean: float | None
    share_cv: float | None
    present_mean: float | None
    present_cv: float | None


class Role(Struct, frozen=True):
    """One agent role, or one model; a model that is not named is ''."""

    name: str
    sessions: int
    """Sessions it appears in."""
    calls: Amount
    prompt_tokens: Amount
    computed_tokens: Amount
    """Prompt tokens that an infinite cache of prompts and answers does not hold."""
    output_tokens: Amount
    inference_s: Amount
    critical_s: Amount
    """Inference seconds on the critical path: the latency that the sessions felt."""
    kv_token_s: Amount
    """Prompt and answer tokens times the seconds of the call: the KV it keeps busy, shared or not."""
    cost: Amount


MEASURES = Role.__struct_fields__[2:]
"""The names of the amounts, in order."""


class Leader(Struct, frozen=True):
    """Who has the largest share of something."""

    name: str
    share: float


class Leaders(Struct, frozen=True):
    """Who dominates: None where there is nothing to share."""

    latency: Leader | None
    """By inference seconds on the critical path."""
    cost: Leader | None
    kv: Leader | None
    """By token-seconds of KV."""


class Roles(Struct, frozen=True):
    """Roles and models, those with most calls first."""

    prices: Prices
    roles: tuple[Role, ...]
    models: tuple[Role, ...]
    leading_roles: Leaders
    leading_models: Leaders


class RolesSection:
    """Tells who does the work; memory: eight numbers a session for every role and model in it."""

    def __init__(self, prices: Prices | None = None) -> None:
        self._prices = prices or Prices()
        self._roles, self._models = _Tally(), _Tally()

    def add(self, facts: SessionFacts) -> None:
        critical_s = [0.0] * len(facts.calls)
        for leg in critical_path(facts, legs(facts)):
            critical_s[leg.call.place] = leg.inference_s
        rows = [_measures(c, critical_s[c.place], self._prices) for c in facts.calls]
        self._roles.add((c.role for c in facts.calls), rows)
        self._models.add((c.call.model for c in facts.calls), rows)

    def result(self) -> Roles:
        roles, models = self._roles.result(), self._models.result()
        return Roles(self._prices, roles, models, leaders(roles), leaders(models))


def leaders(roles: Sequence[Role]) -> Leaders:
    """Who has the largest share of latency, cost and KV."""
    return Leaders(
        latency=_leader((role.name, role.critical_s.share) for role in roles),
        cost=_leader((role.name, role.cost.share) for role in roles),
        kv=_leader((role.name, role.kv_token_s.share) for role in roles),
    )


def _leader(shares: Iterable[tuple[str, float | None]]) -> Leader | None:
    told = [Leader(name, share) for name, share in shares if share is not None]
    return max(told, key=lambda leader: leader.share, default=None)


def _measures(c: CallFacts, critical_s: float, prices: Prices) -> tuple[float, ...]:
    """A call's part of every one of MEASURES."""
    computed, output = c.reuse.fresh_tokens, c.call.output_tokens
    return (
        1,
        c.prompt_tokens,
        computed,
        output,
        c.seconds,
        critical_s,
        (c.prompt_tokens + c.call.answer_tokens) * c.seconds,
        prices.cost(computed, c.prompt_tokens - computed, output),
    )


class _Member:
    """One role's totals, and its shares in the sessions it appears in."""

    def __init__(self) -> None:
        self.sessions = 0
        self.totals = [0.0] * len(MEASURES)
        self.shares = [array("d") for _ in MEASURES]


class _Tally:
    """Sums over sessions, by name."""

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}
        self._sessions = [0] * len(MEASURES)

    def add(self, names: Iterable[str], rows: Sequence[tuple[float, ...]]) -> None:
        """The calls of one session: the name and the measures of each."""
        here: dict[str, list[float]] = {}
        for name, row in zip(names, rows, strict=True):
            sums = here.setdefault(name, [0.0] * len(MEASURES))
            for index, value in enumerate(row):
                sums[index] += value
        for index, total in enumerate(map(sum, zip(*here.values(), strict=True))):
            if total > 0:
                self._sessions[index] += 1
                for name, sums in here.items():
                    self._member(name).shares[index].append(sums[index] / total)
        for name, sums in here.items():
            member = self._member(name)
            member.sessions += 1
            member.totals = [total + value for total, value in zip(member.totals, sums, strict=True)]

    def result(self) -> tuple[Role, ...]:
        wholes = [sum(column) for column in zip(*(m.totals for m in self._members.values()), strict=True)]
        ordered = sorted(self._members.items(), key=lambda item: (-item[1].totals[0], item[0]))
        return tuple(
            Role(name, member.sessions, *map(_amount, member.totals, wholes, member.shares, self._sessions))
            for name, member in ordered
        )

    def _member(self, name: str) -> _Member:
        return self._members.setdefault(name, _Member())


def _amount(total: float, whole: float, shares: array[float], sessions: int) -> Amount:
    share = total / whole if whole > 0 else None
    return Amount(total, share, sessions, *_steadiness(shares, sessions), *_steadiness(shares, len(shares)))


def _steadiness(shares: array[float], sessions: int) -> tuple[float | None, float | None]:
    """Mean and coefficient of variation over so many sessions: those of the shares, and others with share 0."""
    if not sessions:
        return None, None
    mean = sum(shares) / sessions
    if not mean or sessions < 2:
        return mean, None
    squares = sum((share - mean) ** 2 for share in shares) + (sessions - len(shares)) * mean**2
    cv = (squares / sessions) ** 0.5 / mean
    return mean, cv if cv > DUST else 0.0
