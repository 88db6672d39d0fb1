"""Tokenizers by name: Hugging Face, tiktoken and Mistral's tekken, each imported when it is asked for.

    hf:DIR           a folder with a tokenizer.json, or that file     (tokenizers)
    tiktoken:NAME    an encoding that tiktoken has on this machine    (tiktoken)
    tiktoken:FILE    a .tiktoken file; its name says the encoding     (tiktoken)
    mistral:FILE     a tekken.json, as mistral-common ships it        (tiktoken)

They count the text of a prompt, not what a chat template puts around it, and take what looks like a special token as
text. Only tiktoken:NAME may go to a network, as tiktoken itself does for a file that is not in its cache.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from workloom.errors import UsageError, nearest

INSTALL = "pip install 'workloom[tokenizers]'"


class Tokenizer(Protocol):
    """What turns text into tokens and back. `vocabulary`: how many tokens there are; ids are below it."""

    name: str
    vocabulary: int

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        ...


def load(spec: str) -> Tokenizer:
    """The tokenizer called ``KIND:WHERE``."""
    kind, _, where = spec.partition(":")
    if kind not in LOADERS or not where:
        near = nearest(kind, list(LOADERS))
        raise UsageError(
            "unknown kind of tokenizer",
            where="--tokenizer",
            expected=", ".join(f"{name}:..." for name in LOADERS),
            found=spec,
            hint=f"did you mean {near}:{where or 'FILE'}?" if near else None,
        )
    return LOADERS[kind](where)


class _Hf:
    """A tokenizer.json of Hugging Face's tokenizers."""

    def __init__(self, name: str, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError:
            raise _missing("tokenizers") from None
        self.name = name
        try:
            self._fast = Fast.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise _unreadable(path, str(error), "a tokenizer.json") from None
        self.vocabulary: int = self._fast.get_vocab_size()

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._fast.decode(list(ids), skip_special_tokens=False)
        return text


class _Tiktoken:
    """A byte-level BPE of tiktoken; `shift` is the number of ids before its first rank."""

    def __init__(self, name: str, encoding: Any, shift: int = 0) -> None:
        self.name = name
        self._encoding = encoding
        self._shift = shift
        self.vocabulary: int = encoding.n_vocab + shift

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def encode(self, text: str) -> list[int]:
        return [rank + self._shift for rank in self._encoding.encode_ordinary(text)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._encoding.decode([i - self._shift for i in ids])
        return text


def _hf(where: str) -> Tokenizer:
    path = Path(where)
    if path.is_dir():
        path /= "tokenizer.json"
    if not path.is_file():
        raise UsageError(
            "no such tokenizer",
            where="--tokenizer",
            expected="a folder with a tokenizer.json, or that file",
            found=path,
            hint="nothing is downloaded: give the folder of the model on this machine",
        )
    return _Hf(f"hf:{where}", path)


_LETTERS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
)
_SPLITS = {
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": "|".join((*_LETTERS, r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")),
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
}
"""How each family of encodings cuts text into words before it merges bytes (tiktoken's openai_public.py). A .tiktoken
file does not hold it."""
_SPLITS["p50k"] = _SPLITS["r50k"]


def _tiktoken(where: str) -> Tokenizer:
    try:
        import tiktoken
    except ImportError:
        raise _missing("tiktoken") from None
    path = Path(where)
    if path.suffix == ".tiktoken":
        return _Tiktoken(f"tiktoken:{where}", _ranks_file(path))
    try:
        return _Tiktoken(f"tiktoken:{where}", tiktoken.Encoding(**_constructor(where)()))
    except OSError as error:  # its file is not in tiktoken's cache, and could not be fetched
        raise UsageError(
            f"the encoding {where} is not on this machine",
            where="--tokenizer",
            found=str(error).partition("\n")[0][:200],
            hint="give its .tiktoken file, or a folder that holds it in TIKTOKEN_CACHE_DIR",
        ) from None


def _constructor(name: str) -> Callable[[], dict[str, Any]]:
    """What tiktoken and the packages that extend it know an encoding by."""
    from tiktoken import registry

    names = registry.list_encoding_names()
    constructors = registry.ENCODING_CONSTRUCTORS or {}
    if name not in constructors:
        near = nearest(name, names)
        raise UsageError(
            "tiktoken knows no such encoding",
            where="--tokenizer",
            expected=", ".join(names),
            found=name,
            hint=f"did you mean {near}?" if near else "a file must end in .tiktoken",
        )
    made: Callable[[], dict[str, Any]] = constructors[name]
    return made


def _ranks_file(path: Path) -> Any:
    """The encoding of a .tiktoken file."""
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    family = next((name for name in _SPLITS if path.name.startswith(name)), None)
    if family is None:
        raise UsageError(
            "the file's name does not say which encoding it is",
            where="--tokenizer",
            expected=", ".join(f"{name}..." for name in _SPLITS),
            found=path.name,
        )
    try:
        ranks = load_tiktoken_bpe(str(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error), "a .tiktoken file") from None
    return tiktoken.Encoding(path.stem, pat_str=_SPLITS[family], mergeable_ranks=ranks, special_tokens={})


class _Ranked(Struct):
    token_bytes: str


class _TekkenConfig(Struct):
    pattern: str
    default_vocab_size: int
    default_num_special_tokens: int


class _Tekken(Struct):
    config: _TekkenConfig
    vocab: list[_Ranked]


def _mistral(where: str) -> Tokenizer:
    """A tekken file: special tokens take the first ids, the ranks follow, and those past the vocabulary's size are
    left out (mistral_common's tekken.py)."""
    try:
        import tiktoken
    except ImportError:
        raise _missing("tiktoken") from None
    path = Path(where)
    try:
        tekken = msgspec.json.decode(path.read_bytes(), type=_Tekken)
    except (OSError, msgspec.DecodeError) as error:
        raise _unreadable(path, str(error), "a tekken.json") from None
    special = tekken.config.default_num_special_tokens
    used = tekken.vocab[: tekken.config.default_vocab_size - special]
    ranks = {base64.b64decode(entry.token_bytes): rank for rank, entry in enumerate(used)}
    encoding = tiktoken.Encoding(
        path.stem, pat_str=tekken.config.pattern, mergeable_ranks=ranks, special_tokens={}, explicit_n_vocab=len(ranks)
    )
    return _Tiktoken(f"mistral:{where}", encoding, special)


LOADERS: dict[str, Callable[[str], Tokenizer]] = {"hf": _hf, "tiktoken": _tiktoken, "mistral": _mistral}


def _missing(package: str) -> UsageError:
    return UsageError(f"this kind of tokenizer needs the package {package}", where="--tokenizer", hint=INSTALL)


def _unreadable(path: Path, found: str, expected: str) -> UsageError:
    return UsageError("a tokenizer cannot be read", where=str(path), expected=expected, found=found)
