"""How the pieces of a prompt become one JSON body: what stands between them, by API.

A body is a head (model, options), then the prompt's fragments with the frame's glue between them, then what closes
the prompt, then the tail:

    head  glue(None, system) text  glue(system, user) text  glue(user, assistant) text ...  close(last)  tail

Glue depends on what stands before and on the number of the fragment alone, so the bytes of a call are a prefix of the
bytes of the next one. Two fragments of one role in a row are one message, and each definition is a tool of its own.
A tool's answer must have been asked for: the glue before it writes the call into the assistant's message, and
makes such a message where there is none.
"""

from __future__ import annotations

from typing import Literal, Protocol

Role = Literal["definition", "system", "user", "assistant", "tool"]
"""definition: the tools array; only at the head of a prompt. tool: what a tool answered."""

FIRST_TOOL = b"t0"
"""The tool that calls name: the first fragment's, where there are definitions."""


class Frame(Protocol):
    """One API's way of writing a prompt."""

    words: bytes
    """Between two fragments of one message, and between the words of a text (a comma for token ids)."""

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        """What stands between a fragment of `before` (None at the start) and fragment number `at`, of `role`."""
        ...

    def close(self, last: Role | None) -> bytes:
        """What closes the prompt behind a fragment of `last`; None for a prompt without any."""
        ...


class TextFrame:
    """One text without roles."""

    def __init__(self, start: bytes, end: bytes, words: bytes) -> None:
        self._start, self._end = start, end
        self.words = words

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        return self._start if before is None else self.words

    def close(self, last: Role | None) -> bytes:
        return self._end if last is not None else self._start + self._end


class CompletionsFrame(TextFrame):
    """OpenAI completions: one text, ``"prompt":"..."``."""

    def __init__(self) -> None:
        super().__init__(b'"prompt":"', b'"', b" ")


class IdsFrame(TextFrame):
    """OpenAI completions with token ids: ``"prompt":[1,2,3]``."""

    def __init__(self) -> None:
        super().__init__(b'"prompt":[', b"]", b",")


class MessageFrame:
    """A list of messages behind a list of tools; the parts of it that differ between APIs are given.

    `tool` opens a tool up to its description, `tool_end` closes it; `opens` begins a message of a role up to its
    text, `ends` goes from its text to its end, and `answer` goes from an open assistant's text to a tool's answer.
    """

    words = b" "

    def __init__(self, field: bytes, tool: bytes, tool_end: bytes, opens: dict[str, bytes], answer: bytes) -> None:
        self._field, self._tool, self._tool_end = field, tool, tool_end
        self._opens, self._answer = opens, answer

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        if role == "definition":
            if before not in (None, "definition"):
                raise ValueError(f"a definition behind a {before} fragment: definitions are the head of a prompt")
            start = b'"tools":[' if before is None else self._tool_end + b","
            return start + self._tool % (b"t%d" % at)
        if before == role:
            return self.words
        if role == "tool":
            if before != "assistant":
                return self._open(before, "assistant") + self._called(at)
            return self._called(at)
        return self._open(before, role)

    def close(self, last: Role | None) -> bytes:
        if last is None or last == "definition":
            return self._open(last, "user") + b'"}]'
        return b'"}]'

    def _open(self, before: Role | None, role: str) -> bytes:
        """Begin a message behind whatever stood before."""
        if before is None:
            return self._field + self._opens[role]
        if before == "definition":
            return self._tool_end + b"]," + self._field + self._opens[role]
        return b'"},' + self._opens[role]

    def _called(self, at: int) -> bytes:
        return self._answer.replace(b"ID", b"call_%d" % at)


class ChatFrame(MessageFrame):
    """OpenAI chat completions: ``"messages":[{"role":..., "content":"..."}]``."""

    def __init__(self) -> None:
        super().__init__(
            b'"messages":[',
            b'{"type":"function","function":{"name":"%s","description":"',
            b'","parameters":{"type":"object","properties":{}}}}',
            {role: b'{"role":"%s","content":"' % role.encode() for role in ("system", "user", "assistant")},
            b'","tool_calls":[{"id":"ID","type":"function","function":{"name":"'
            + FIRST_TOOL
            + b'","arguments":"{}"}}]},'
            b'{"role":"tool","tool_call_id":"ID","content":"',
        )


class ResponsesFrame(MessageFrame):
    """OpenAI responses: ``"input":[{"role":..., "content":"..."}]``; calls and their outputs are items of their own."""

    def __init__(self) -> None:
        super().__init__(
            b'"input":[',
            b'{"type":"function","name":"%s","description":"',
            b'","parameters":{"type":"object","properties":{}}}',
            {
                role: b'{"type":"message","role":"%s","content":"' % role.encode()
                for role in ("system", "user", "assistant")
            },
            b'"},{"type":"function_call","call_id":"ID","name":"' + FIRST_TOOL + b'","arguments":"{}"},'
            b'{"type":"function_call_output","call_id":"ID","output":"',
        )

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        if role == "tool" and before not in ("tool", "assistant"):  # a call needs no message before it
            call = self._called(at).removeprefix(b'"},')
            start = self._open(before, "user")
            return start[: len(start) - len(self._opens["user"])] + call
        return super().glue(before, role, at)


class MessagesFrame:
    """Anthropic messages: ``"system":"..."``, then messages of blocks, the first of them the user's.

    Tool results stand in the user's message.
    """

    words = b" "

    def glue(self, before: Role | None, role: Role, at: int) -> bytes:
        if role == "definition":
            if before not in (None, "definition"):
                raise ValueError(f"a definition behind a {before} fragment: definitions are the head of a prompt")
            start = b'"tools":[' if before is None else _SCHEMA + b","
            return start + b'{"name":"t%d","description":"' % at
        if before == role:
            return self.words
        if role == "system":
            if before not in (None, "definition"):
                raise ValueError(f"a system fragment behind a {before} fragment: there is one system text, at the head")
            return b'"system":"' if before is None else _SCHEMA + b'],"system":"'
        start = self._start(before)
        if start and role != "user":
            start += _USER + b'."}]},'  # the first message must be the user's
        if role == "user":
            return start + _USER if start else b'"},' + _TEXT if before == "tool" else b'"}]},' + _USER
        if role == "assistant":
            return start + _ASSISTANT if start else b'"}]},' + _ASSISTANT
        return self._result(before, start, at)

    def close(self, last: Role | None) -> bytes:
        if last in (None, "definition", "system"):
            return self._start(last) + _USER + b'."}]}]'
        return b'"}]}]'

    def _start(self, before: Role | None) -> bytes:
        """From the end of the head to the first message; empty when that has begun."""
        if before is None:
            return b'"messages":['
        if before == "definition":
            return _SCHEMA + b'],"messages":['
        return b'","messages":[' if before == "system" else b""

    def _result(self, before: Role | None, start: bytes, at: int) -> bytes:
        """A tool's result, and the use of it in the assistant's message before."""
        use = b'{"type":"tool_use","id":"call_%d","name":"%s","input":{}}]},' % (at, FIRST_TOOL)
        result = b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"call_%d","content":"' % at
        if before == "assistant":
            return b'"},' + use + result
        return (start or b'"}]},') + b'{"role":"assistant","content":[' + use + result


_SCHEMA = b'","input_schema":{"type":"object","properties":{}}}'
_TEXT = b'{"type":"text","text":"'
_USER = b'{"role":"user","content":[' + _TEXT
_ASSISTANT = b'{"role":"assistant","content":[' + _TEXT
