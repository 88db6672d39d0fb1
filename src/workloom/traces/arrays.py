"""The JSON objects of a file one by one, wherever they lie, with their places: telemetry comes in all of these shapes.

    {...}\\n{...}          one a line                      keys = ()
    {\\n  ...\\n}\\n{\\n ...   one after the other, indented   keys = ()
    [{...}, {...}]        a list                          keys = ()
    {"a": [{"b": [...]}]}  lists inside a document         keys = ("a", "b")

One object is held at a time, whatever the size of the file. Text is looked at as Latin-1, where a character is a byte;
what is in strings is for the reader's own decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from workloom.errors import TraceError
from workloom.traces.faults import short
from workloom.traces.lines import BOM, HALF_WRITTEN
from workloom.traces.reading import Intake

CHUNK_BYTES = 1 << 20
_SLACK = 16
"""An error so near to the end of what was read may come from what was not read yet: no word of JSON is longer."""

_blank = re.compile(r"[ \t\r\n]*")
_fresh_start = re.compile(r"\n[\[{]")
_decoder = JSONDecoder(parse_int=str, parse_float=str)  # digits stay text: no limit on how many


class Element(NamedTuple):
    """One object: the line it begins on (from 1), its place in the content of the file, its bytes."""

    line: int
    offset: int
    data: bytes


class _Malformed(Exception):
    """No JSON at `line`; `ended`: because the file ended."""

    def __init__(self, line: int, found: str, *, ended: bool = False) -> None:
        super().__init__(found)
        self.line = line
        self.found = found
        self.ended = ended


def elements(path: Path, file: IO[bytes], keys: tuple[str, ...], intake: Intake) -> Iterator[Element]:
    """The objects of a file below `keys`, or those it is made of; lists may stand around each.

    Malformed JSON is one TraceError to `intake.on_bad`; behind it the next line that begins an object is read, but
    nothing more of a list or a document that it is part of. An object that the file ends in is counted as half-written.
    """
    text = _Text(file)
    while text.peek():
        start = text.mark()
        try:
            yield from _values(text, keys, 0)
        except _Malformed as fault:
            single = not keys and start == text.last
            if fault.ended and single and not text.ends_a_line():
                intake.report.drop(HALF_WRITTEN)
                return
            what = "the file ends in the middle of a document" if fault.ended else "the content is not JSON"
            where = f"{path}, line {fault.line}"
            intake.on_bad(TraceError(what, where=where, expected="JSON in UTF-8", found=fault.found))
            if not single or not text.resume():
                return


def _values(text: _Text, keys: tuple[str, ...], level: int) -> Iterator[Element]:
    """The value at the cursor, or those of the list there."""
    if text.peek() != "[":
        yield from _value(text, keys, level)
        return
    text.at += 1
    while text.separated("]"):
        yield from _value(text, keys, level)


def _value(text: _Text, keys: tuple[str, ...], level: int) -> Iterator[Element]:
    if level == len(keys):
        yield text.element()
    elif text.peek() == "{":
        text.at += 1
        while text.separated("}"):
            key = text.key()
            if key == keys[level]:
                yield from _values(text, keys, level + 1)
            else:
                text.skip()
    else:
        text.skip()


class _Text:
    """A file as text with a cursor; what is behind the cursor is let go."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.seek(0)
        begin = file.read(len(BOM))
        self._text = "" if begin == BOM else begin.decode("latin-1")
        self._base = len(BOM) if begin == BOM else 0
        self._line, self._counted = 1, 0
        self._whole = False
        self.at = 0
        self.last = -1
        """The place of the value that was last begun."""

    def mark(self) -> int:
        """The cursor's place in the file."""
        return self._base + self.at

    def peek(self) -> str:
        """The next character that is not blank, or nothing at the end."""
        while True:
            match = _blank.match(self._text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def separated(self, end: str) -> bool:
        """Go to the next member of a list or object; false, and behind its end, if there is none."""
        found = self.peek()
        if found == ",":
            self.at += 1
            found = self.peek()
        if found == end:
            self.at += 1
            return False
        if not found:
            self._fail(ended=True)
        return True

    def key(self) -> str:
        if self.peek() != '"':
            self._fail()
        begin, end = self.skip()
        key = self._text[begin + 1 : end - 1]
        if self.peek() != ":":
            self._fail(ended=self.at >= len(self._text))
        self.at += 1
        return key

    def element(self) -> Element:
        begin, end = self.skip()
        return Element(self._line_at(begin), self._base + begin, self._text[begin:end].encode("latin-1"))

    def skip(self) -> tuple[int, int]:
        """Go behind the value at the cursor; where it is in the text."""
        self.peek()
        self.last = self.mark()
        while True:
            try:
                _, end = _decoder.raw_decode(self._text, self.at)
            except JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _SLACK
                if cut and self._more():
                    continue
                self._fail(ended=cut)
            except RecursionError:
                self._fail()
            else:
                number = self._text[self.at] not in '{["'
                if number and end == len(self._text) and self._more():
                    continue
                begin, self.at = self.at, end
                return begin, end

    def resume(self) -> bool:
        """Go to the next line, behind the value last begun, that begins an object or a list; false if there is none."""
        while True:
            match = _fresh_start.search(self._text, self.at)
            if match:
                self.at = match.end() - 1
                return True
            self.at = max(self.at, len(self._text) - 1)
            if not self._more():
                return False

    def ends_a_line(self) -> bool:
        """Whether the content, all read, ends with the end of a line."""
        return self._text.endswith("\n")

    def _more(self) -> bool:
        """Read on, at least as much as there is left; false at the end of the file."""
        if self._whole:
            return False
        data = self._file.read(max(CHUNK_BYTES, len(self._text) - self.at))
        if not data:
            self._whole = True
            return False
        self._line_at(self.at)
        self._base += self.at
        self._text = self._text[self.at :] + data.decode("latin-1")
        self._counted = self.at = 0
        return True

    def _line_at(self, place: int) -> int:
        self._line += self._text.count("\n", self._counted, place)
        self._counted = max(self._counted, place)
        return self._line

    def _fail(self, *, ended: bool = False) -> NoReturn:
        data = self._text[self.at : self.at + 400].encode("latin-1")
        raise _Malformed(self._line_at(self.at), short(data) or "the end of the file", ended=ended)
