"""OpenAI chat completions: ``POST /chat/completions``."""

from __future__ import annotations

from workloom.drive.api.base import Api
from workloom.drive.events import OpenAIAnswer
from workloom.drive.frame import ChatFrame

CHAT = Api(
    name="chat",
    path="/chat/completions",
    frame=ChatFrame(),
    answers=OpenAIAnswer,
    prompt_fields=("messages", "tools"),
    limit_field="max_tokens",
    stream_fields={"stream": True, "stream_options": {"include_usage": True}},
)
