"""mini-swe-agent: a run of version 2 with usage, an answer that could not be parsed, a comment and a failed end."""

from __future__ import annotations

import json

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    def response(prompt: int, output: int, cached: int) -> dict[str, object]:
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        choices = [{"message": {"content": text("choice")}, "finish_reason": text("finish_reason")}]
        return {"id": text("response id"), "model": name("response model"), "usage": usage, "choices": choices}

    def observed(seconds: float, call: str) -> dict[str, object]:
        extra = {
            "raw_output": text("raw_output"),
            "returncode": 1,
            "timestamp": seconds,
            "exception_info": text("info"),
        }
        return {"role": "tool", "tool_call_id": text(call), "content": text("observation"), "extra": extra}

    call = {"id": text("call"), "type": "function", "function": {"name": "bash", "arguments": text("arguments")}}
    actions = [{"command": text("command"), "tool_call_id": text("call")}]
    messages = [
        {"role": "system", "content": text("system")},
        {"role": "user", "content": [{"type": "text", "text": text("task")}]},
        {
            "role": "assistant",
            "content": text("thought"),
            "tool_calls": [call],
            "reasoning_content": text("reasoning"),
            "extra": {"actions": actions, "cost": 0.1, "response": response(400, 30, 0), "timestamp": 1706000000.0},
        },
        observed(1706000003.5, "call"),
        {
            "role": "user",
            "content": text("format error"),
            "extra": {
                "interrupt_type": "FormatError",
                "model_response": text("model_response"),
                "response": text("repr"),
            },
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call, call],
            "extra": {"actions": actions * 2, "response": response(520, 12, 384), "timestamp": 1706000009.0},
        },
        observed(1706000011.0, "call 2"),
        {"role": "user", "content": text("comment"), "extra": {"interrupt_type": "UserInterruption"}},
        {
            "object": "response",
            "id": text("id"),
            "model": name("model"),
            "usage": {"input_tokens": 600, "output_tokens": 9},
            "output": [{"type": "message", "content": [{"type": "output_text", "text": text("output text")}]}],
            "extra": {"actions": [], "timestamp": 1706000020.0},
        },
        {
            "role": "exit",
            "content": text("exit"),
            "extra": {
                "exit_status": text("status"),
                "submission": text("submission"),
                "exception_str": text("exception"),
                "traceback": text("traceback"),
            },
        },
    ]
    info = {
        "model_stats": {"instance_cost": 0.3, "api_calls": 5},
        "config": {"model": {"model_name": name("model_name"), "model_kwargs": {"api_base": text("api_base")}}},
        "mini_version": "2.4.6",
        "exit_status": text("exit_status"),
        "submission": text("submission"),
    }
    document = {
        "info": info,
        "messages": messages,
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": text("instance_id"),
    }
    return {"run/task/task.traj.json": json.dumps(document, indent=2).encode()}
