"""What a debug trace must not hold: servers say keys again, and body fields carry some."""

from __future__ import annotations

from typing import Any

import msgspec

from workloom.drive.debug import Exchange
from workloom.drive.targets import HttpOptions
from workloom.store.manifest import REDACTED, redact

LEAST = 8
"""Letters of a secret; shorter words would be blotted out in prompts."""


def known(http: HttpOptions) -> tuple[str, ...]:
    """The secrets of a run: the API key, values of headers, secrets among body fields; the longest first."""
    values = [http.api_key or "", *http.headers.values()]
    values += [value.split()[-1] for value in http.headers.values() if value.split()]  # behind Bearer or Basic
    values += _hidden(http.body, redact(http.body))
    found = {value for value in values if len(value) >= LEAST}
    return tuple(sorted(found, key=len, reverse=True))  # one may hold another


class Blot:
    """Takes the secrets of a run out of its exchanges."""

    def __init__(self, http: HttpOptions) -> None:
        self._secrets = [msgspec.json.encode(value)[1:-1] for value in known(http)]

    def __call__(self, exchange: Exchange) -> Exchange:
        line = msgspec.json.encode(exchange)
        held = [secret for secret in self._secrets if secret in line]
        if not held:
            return exchange
        for secret in held:
            line = line.replace(secret, REDACTED.encode())
        return msgspec.json.decode(line, type=Exchange)


def _hidden(plain: Any, redacted: Any) -> list[str]:
    """The strings that are not the same in a redacted copy."""
    if isinstance(plain, dict):
        return [text for name, value in plain.items() for text in _hidden(value, redacted[name])]
    if isinstance(plain, list):
        return [text for pair in zip(plain, redacted, strict=True) for text in _hidden(*pair)]
    return [plain] if isinstance(plain, str) and plain != redacted else []
