"""What of a trace may leave the machine it was recorded on: sizes, times, roles, names; no text, no identities.

Every id that came with the trace becomes a keyed digest under a salt of the import, which is kept nowhere: equal
secrets in two imports cannot be linked, and a guess cannot be checked (with a phrase for a salt: not without guessing
the phrase too). Inside one import equal ids stay equal, so sharing survives. Ids of calls and agents become numbers.
"""

from __future__ import annotations

from hashlib import blake2b, scrypt

from msgspec import Struct
from msgspec.structs import replace

from workloom import seeds
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session, Span

DIGEST_BYTES = 8
"""Two of a million ids meet by chance once in 37 million imports."""

COUNTS = ("prompt_tokens", "output_tokens", "reasoning_tokens", "spans")
"""What may be marked as estimated; anything else there would be text."""


class Privacy(Struct, frozen=True):
    """`salt`: the key of all digests; `hash_names`: names of tools, agents, models, workflows too."""

    salt: bytes
    hash_names: bool = False
    keep_text: bool = False


def salt(phrase: str | None) -> bytes:
    """The key that a phrase stands for; a fresh one that is kept nowhere without a phrase.

    Names of tools are known, so a phrase can be tried on their digests: each try is made to cost a tenth of a second.
    """
    if phrase is None:
        return seeds.fresh_salt()
    return scrypt(
        phrase.encode("utf-8", "surrogatepass"), salt=b"workloom", n=1 << 15, r=8, p=1, maxmem=1 << 26, dklen=32
    )


def anonymous(session: Session, privacy: Privacy) -> Session:
    """The session without text and identities: see :class:`Privacy` for what is kept."""
    return _Anonymous(privacy).session(session)


class _Anonymous:
    """One session's new names."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._calls: dict[str, str] = {}
        self._agents: dict[str, str] = {}
        self._of_type: dict[str, int] = {}

    def session(self, session: Session) -> Session:
        for call in session.calls:
            self._calls[call.id] = f"c{len(self._calls)}"
        return replace(
            session,
            id=self._digest("session", session.id),
            user=None if session.user is None else self._digest("user", session.user),
            workflow=self._name(session.workflow),
            origin=None,
            calls=tuple(self._call(call) for call in session.calls),
        )

    def _call(self, call: Call) -> Call:
        calls, inherit = self._calls, call.inherit
        return Call(
            calls[call.id],
            call.output_tokens,
            tuple([Edge(calls[edge.call], edge.wait_s, edge.gap) for edge in call.after]) if call.after else (),
            self._agent(call.agent),
            self._name(call.model) or "",
            None if inherit is None else Inherit(calls[inherit.call], inherit.tokens),
            tuple([Span(self._digest("span", span.name), span.tokens, span.scope) for span in call.spans]),
            tuple([self._part(part) for part in call.fresh]),
            call.reasoning_tokens,
            call.stop_after,
            self._recorded(call.recorded),
        )

    def _part(self, part: Part) -> Part:
        if part.name is None and part.from_call is None and part.text is None:
            return part
        return Part(
            part.kind,
            part.tokens,
            self._name(part.name),
            part.seconds,
            None if part.from_call is None else self._calls[part.from_call],
            part.text if self._privacy.keep_text else None,
        )

    def _recorded(self, recorded: Recorded | None) -> Recorded | None:
        if recorded is None or (recorded.answer is None and not recorded.estimated):
            return recorded
        return replace(
            recorded,
            estimated=tuple(name for name in recorded.estimated if name in COUNTS),
            answer=recorded.answer if self._privacy.keep_text else None,
        )

    def _agent(self, agent: str) -> str:
        """`main`, or the type of the agent and its number among those of the type."""
        if agent == "main":
            return agent
        known = self._agents.get(agent)
        if known is None:
            kind = self._name(agent.split(":", 1)[0]) or "agent"
            number = self._of_type[kind] = self._of_type.get(kind, 0) + 1
            known = self._agents[agent] = f"{kind}:{number}"
        return known

    def _name(self, name: str | None) -> str | None:
        return self._digest("name", name) if name and self._privacy.hash_names else name

    def _digest(self, what: str, text: str) -> str:
        data = f"{what}\0{text}".encode("utf-8", "surrogatepass")
        return blake2b(data, digest_size=DIGEST_BYTES, key=self._privacy.salt).hexdigest()
