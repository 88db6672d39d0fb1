"""Probes of tools: is a tools array taken and does it reach the prompt, and does a tool's answer?"""

from __future__ import annotations

from typing import Any

from workloom.drive.probe.answer import Answer
from workloom.drive.probe.findings import Finding, found
from workloom.drive.probe.lab import Lab

_WORDS = 40
"""Words of a tool's description and of its answer: so many tokens at least must be added to the prompt."""
_ASK = "What is the weather in Paris? Call the tool."


async def tools(lab: Lab) -> list[Finding]:
    """The tools array and role:tool messages of chat completions."""
    if lab.known.primary != "chat":
        text = "only asked of chat completions, which do not answer"
        return [found("tools", name, "unknown", text) for name in ("tools_array", "tool_message")]
    bare = await lab.say(_ASK, 1)
    return [await _array(lab, bare), await _message(lab, bare)]


async def _array(lab: Lab, bare: Answer) -> Finding:
    array = [_tool(lab.words(_WORDS))]
    answer = await lab.say(_ASK, 32, tools=array)
    how = ""
    if answer.refused or answer.status == 500:
        said, answer = answer.error, await lab.say(_ASK, 32, tools=array, tool_choice="none")
        if not answer.ok:
            return found("tools", "tools_array", "no", f"{said}")
        lab.known.auto_tools, how = False, f"only with tool_choice none ({said}); "
    if not answer.ok:
        return found("tools", "tools_array", "unknown", f"{answer.error}")
    call = f"; a call came: {answer.tool_calls[:40]}" if answer.tool_calls else ""
    return _reached("tools_array", how, bare, answer, call)


async def _message(lab: Lab, bare: Answer) -> Finding:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": _ASK},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": lab.words(_WORDS)},
    ]
    answer = await lab.say("", 8, messages=messages)
    if not answer.ok:
        return found("tools", "tool_message", "no" if answer.refused else "unknown", f"{answer.error}")
    return _reached("tool_message", "", bare, answer, "")


def _reached(name: str, how: str, bare: Answer, answer: Answer, more: str) -> Finding:
    """Taken is not enough: templates leave out what they do not know."""
    if bare.prompt_tokens is None or answer.prompt_tokens is None:
        return found("tools", name, "yes", f"{how}taken; no usage tells if it reached the prompt{more}")
    grown = answer.prompt_tokens - bare.prompt_tokens
    text = f"{how}{grown} tokens more in the prompt for {_WORDS} words{more}"
    return found("tools", name, "yes" if grown >= _WORDS else "ignored", text)


def _tool(description: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": "weather", "description": description, "parameters": parameters}}
