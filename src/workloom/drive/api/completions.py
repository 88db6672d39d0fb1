"""OpenAI completions: ``POST /completions``, with a text or with token ids for a prompt."""

from __future__ import annotations

from msgspec.structs import replace

from workloom.drive.api.base import Api
from workloom.drive.events import OpenAIAnswer
from workloom.drive.frame import CompletionsFrame, IdsFrame

COMPLETIONS = Api(
    name="completions",
    path="/completions",
    frame=CompletionsFrame(),
    answers=OpenAIAnswer,
    prompt_fields=("prompt",),
    limit_field="max_tokens",
    stream_fields={"stream": True, "stream_options": {"include_usage": True}},
    needs_limit=True,  # without one, 16 tokens (OpenAI, vLLM)
)
TOKEN_IDS = replace(COMPLETIONS, frame=IdsFrame())
"""The same with prompts of token ids."""
