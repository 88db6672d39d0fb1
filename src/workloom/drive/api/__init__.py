"""The APIs that the live client speaks, by the names users give them."""

from __future__ import annotations

from workloom.drive.api.base import Api, OutputMode
from workloom.drive.api.chat import CHAT
from workloom.drive.api.completions import COMPLETIONS, TOKEN_IDS
from workloom.drive.api.messages import MESSAGES
from workloom.drive.api.responses import RESPONSES

__all__ = ["APIS", "TOKEN_IDS", "Api", "OutputMode"]

APIS: dict[str, Api] = {api.name: api for api in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
