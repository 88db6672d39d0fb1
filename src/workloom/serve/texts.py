"""From text to :class:`workloom.prefix.Key`: which tokens a prompt shares with everything seen before.

One whitespace-separated word is one token. Texts stand in a trie of streams; a stream is a run of words with a number,
and what follows it branches off at the number of its words that were used and the next word:

    root -(0, "you")-> 1 "you are an agent ..." -(812, "bakalu")-> 2 "bakalu the answer" -(3, "tool")-> 3 "tool said"
                                                -(640, "other")-> 4 "other user"       (parted in the middle of 1)

A prompt walks down comparing whole strings (a memory compare per stream), never word by word; what is left over becomes
a new stream. Streams never change, so equal words have equal keys and different words part at the first that differs.
When the texts outgrow their bound the least recently used streams are dropped, outermost first; text that comes back
afterwards has new numbers, which to the engine is text it never saw.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import NamedTuple

from workloom.prefix import Key
from workloom.serve.answers import answer_words

MAX_BYTES = 2 << 30
"""Default bound on the memory of all streams."""
STREAM_BYTES = 700
"""What a stream costs beside its text."""


class Stream:
    """A run of words behind one history. `marks`: (characters, words) up to the places where others branch off."""

    __slots__ = ("children", "marks", "number", "parent", "place", "text", "words")

    def __init__(self, number: int, parent: Stream | None, place: tuple[int, str], text: str) -> None:
        self.number = number
        self.parent = parent
        self.place = place
        self.text = text
        self.words = text.count(" ") + 1 if text else 0
        self.children: dict[tuple[int, str], Stream] = {}
        self.marks: list[tuple[int, int]] = []

    def words_before(self, end: int) -> int:
        """Words in the first `end` characters, which end with a word; the place is remembered."""
        if end == len(self.text):
            return self.words
        at = bisect_right(self.marks, (end, self.words))
        start, words = self.marks[at - 1] if at else (0, 1)
        if start != end:
            words += self.text.count(" ", start, end)
            self.marks.insert(at, (end, words))
        return words

    def first_word_after(self, end: int) -> str | None:
        """The word that follows the first `end` characters, which end with a word; None at the end."""
        if end >= len(self.text):
            return None
        return _word(self.text, end + 1 if end else 0)


class Place(NamedTuple):
    """Where a prompt ends: its key, the stream it ends in, and how many characters and words of that are used."""

    key: Key
    stream: Stream
    end: int
    words: int


class Answer(NamedTuple):
    """An answer to be: the number of its text, and its words."""

    number: int
    words: list[str]


class Texts:
    """Every text seen, up to `max_bytes` of memory."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._root = Stream(0, None, (0, ""), "")
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        """Least recently used first; a stream comes before the one it hangs on."""
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._streams)

    def prompt(self, text: str) -> Place:
        """Where the words of a text lead; new ones are kept."""
        path, at = self._walk(text)
        if at < len(text) and not _normal(text, at):
            text = f"{text[:at]} {_normalised(text[at:])}".strip()
            path, at = self._walk(text)
        if at < len(text):
            stream, _, words = path[-1] if path else (self._root, 0, 0)
            start = at + 1 if at else 0
            new = self._grow(stream, (words, _word(text, start)), text[start:], self._next_number())
            path.append((new, len(new.text), new.words))
        for stream, _, _ in reversed(path):
            self._streams.move_to_end(stream.number)
        self._bound()
        ids, ends, total = [], [], 0
        for stream, _, words in path:
            total += words
            ids.append(stream.number)
            ends.append(total)
        end_of = path[-1] if path else (self._root, 0, 0)
        return Place(Key(tuple(ids), tuple(ends)), *end_of)

    def answer(self, prompt: Place, tokens: int) -> Answer:
        """Words to answer a prompt with, unlike any other answer from the first one on, and kept like a text seen."""
        stream, end, used = prompt.stream, prompt.end, prompt.words
        while True:
            number = self._next_number()
            words = answer_words(number, tokens)
            place = (used, words[0])
            if place not in stream.children and words[0] != stream.first_word_after(end):
                break
        if stream is self._root or stream.number in self._streams:
            self._grow(stream, place, " ".join(words), number)
            for above in _up(stream):
                self._streams.move_to_end(above)
            self._bound()
        return Answer(number, words)

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _walk(self, text: str) -> tuple[list[tuple[Stream, int, int]], int]:
        """The streams a text runs through, with the characters and words used of each, and how far it is known."""
        path: list[tuple[Stream, int, int]] = []
        stream, words, at, size = self._root, 0, 0, len(text)
        while at < size:
            start = at + 1 if at else 0
            child = stream.children.get((words, _word(text, start)))
            if child is None:
                break
            stream, known = child, child.text
            at = start + len(known)
            if text.startswith(known, start) and (at == size or text[at] == " "):
                words = child.words
                path.append((child, len(known), words))
                continue
            end = _shared(text, start, known)
            words = child.words_before(end)
            path.append((child, end, words))
            at = start + end
        return path, at

    def _grow(self, parent: Stream, place: tuple[int, str], text: str, number: int) -> Stream:
        stream = Stream(number, parent, place, text)
        parent.children[place] = stream
        self._streams[number] = stream
        self.bytes += _bytes(stream)
        return stream

    def _bound(self) -> None:
        while self.bytes > self._max_bytes:
            _, stream = self._streams.popitem(last=False)
            assert stream.parent is not None and not stream.children
            del stream.parent.children[stream.place]
            self.bytes -= _bytes(stream)


def check(texts: Texts) -> None:
    """Raise AssertionError unless the trie is whole: places are right, and what hangs on a stream is older in use."""
    order = {number: i for i, number in enumerate(texts._streams)}
    seen, nodes = 0, [texts._root]
    while nodes:
        stream = nodes.pop()
        for place, child in stream.children.items():
            assert child.place == place and child.parent is stream and texts._streams[child.number] is child
            assert place[1] == child.text.split(" ", 1)[0] and child.words == len(child.text.split())
            assert stream is texts._root or 0 < place[0] <= stream.words
            assert place[0] == stream.words or stream.text.split(" ")[place[0]] != place[1], "no word has two places"
            assert stream is texts._root or order[child.number] < order[stream.number]
            seen += 1
            nodes.append(child)
    assert seen == len(texts)
    assert texts.bytes == sum(map(_bytes, texts._streams.values()))


def _bytes(stream: Stream) -> int:
    return stream.text.__sizeof__() + STREAM_BYTES


def _up(stream: Stream) -> list[int]:
    """The numbers of a stream and all it hangs on."""
    out = []
    while stream.parent is not None:
        out.append(stream.number)
        stream = stream.parent
    return out


def _word(text: str, start: int) -> str:
    end = text.find(" ", start)
    return text[start:] if end < 0 else text[start:end]


def _normal(text: str, start: int) -> bool:
    """True when words from here on are parted by single spaces and nothing else (False may be a false alarm).

    Every kind of space but " " is unprintable. `start` is at the start of a text or at a space.
    """
    rest = text[start + 1 :] if start else text
    return (
        rest != "" and rest.isprintable() and "  " not in rest and not rest.startswith(" ") and not rest.endswith(" ")
    )


def _normalised(text: str) -> str:
    """The words parted by single spaces; texts with nothing but usual white space never become a list of words."""
    for space in "\n\t\r":
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ") if text.isprintable() else " ".join(text.split())


def _shared(text: str, start: int, known: str) -> int:
    """Characters of the longest run of whole words that `known` and `text` from `start` on begin with."""
    low, high = 0, min(len(known), len(text) - start)
    while low < high:  # the first `low` characters are equal
        middle = (low + high + 1) // 2
        if text.startswith(known[low:middle], start + low):
            low = middle
        else:
            high = middle - 1
    whole = low == len(known) or known[low] == " "
    if whole and (start + low == len(text) or text[start + low] == " "):
        return low
    return known.rfind(" ", 0, low)
