"""The bytes of answers.

A stream's chunks differ only in one word, so everything around it is made once per request. Chunks are as vLLM sends
them: for a chat one with the role and no content, one for every token, one with the reason it ended, one with the usage
and no choices if asked for, then [DONE]. Tokens that are late together leave in one write.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import msgspec
from aiohttp import web

from workloom.engine.engine import Finished

_json = msgspec.json.encode
_HOLE = "\0"
"""Stands where the word goes while the rest of a chunk is made."""
_HOLE_BYTES = _json(_HOLE)[1:-1]


class Form:
    """How the answers to one request look."""

    def __init__(self, chat: bool, name: str, model: str, created_s: int, words: list[str], prompt_tokens: int) -> None:
        self.chat, self.name, self.model, self.created_s = chat, name, model, created_s
        self.words = words
        self.prompt_tokens = prompt_tokens

    def _head(self, streamed: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if streamed else "chat.completion") if self.chat else "text_completion"
        return {"id": self.name, "object": kind, "created": self.created_s, "model": self.model}

    def _event(self, **rest: object) -> bytes:
        return b"data: " + _json(self._head(True) | rest) + b"\n\n"

    def _chunk(self, said: object, finish: str | None) -> bytes:
        choice = {"index": 0, "delta" if self.chat else "text": said, "logprobs": None, "finish_reason": finish}
        return self._event(choices=[choice])

    def usage(self, finished: Finished) -> dict[str, Any]:
        """Token counts of a call that ended."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + finished.output_tokens,
            "completion_tokens": finished.output_tokens,
            "prompt_tokens_details": {"cached_tokens": finished.cached_tokens},
        }

    def whole(self, finished: Finished) -> bytes:
        """The answer in one piece."""
        text = " ".join(self.words[: finished.output_tokens])
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        return _json(self._head(False) | {"choices": [choice], "usage": self.usage(finished)})

    def opening(self) -> bytes:
        """What a stream begins with, before the first token."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.chat else b""

    def around_word(self) -> tuple[bytes, bytes]:
        """The bytes of a token's chunk before and after its text."""
        before, after = self._chunk({"content": _HOLE} if self.chat else _HOLE, None).split(_HOLE_BYTES)
        return before, after

    def closing(self, finished: Finished, usage: bool) -> bytes:
        """What a stream ends with."""
        end = self._chunk({} if self.chat else "", "length")
        if usage:
            end += self._event(choices=[], usage=self.usage(finished))
        return end + b"data: [DONE]\n\n"


class Stream:
    """The listener of a streamed call: writes each token to its response at once, waking nobody.

    A client that reads too slowly is not waited for: what it has not taken stays in the transport's buffer, which its
    answer bounds. Only the end then is left to whoever may wait: `rest`.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse, form: Form, usage: bool) -> None:
        self.rest = b""
        """What is still to be written when the call is done."""
        self._transport = request.transport
        self._response = response
        self._form = form
        self._usage = usage
        self._sent = 0
        self._before, self._after = form.around_word()

    def tokens(self, total: int) -> None:
        words, before, after = self._form.words, self._before, self._after
        chunks = [
            b"%s%s%s%s" % (before, b" " if i else b"", words[i].encode(), after) for i in range(self._sent, total)
        ]
        self._sent = total
        _at_once(self._response.write(b"".join(chunks)))

    def end(self, finished: Finished) -> None:
        closing = self._form.closing(finished, self._usage)
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > _UNPAUSED_BYTES:
            self.rest = closing
        else:
            _at_once(self._response.write_eof(closing))


_UNPAUSED_BYTES = 8192
"""Below this no transport is paused, so that nothing has to wait (aiohttp's are from 64 KiB until 16 KiB)."""


def _at_once(write: Coroutine[Any, Any, None]) -> None:
    """Run a write that waits for nothing but, when all is said, for the buffer to drain: that we leave out."""
    try:
        write.send(None)
    except (StopIteration, ConnectionError):  # a lost connection cancels its handler, which sees to the call
        return
    write.close()
