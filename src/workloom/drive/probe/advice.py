"""What the findings mean for a run: options of `workloom run`, and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from workloom.drive.probe.findings import Finding
from workloom.drive.probe.lab import Known

_CACHE_FLAGS = {"vLLM": "--enable-prompt-tokens-details", "SGLang": "--enable-cache-report"}
"""What an engine must be started with to tell cached tokens."""

_RESET_SETTINGS = {"vLLM": "VLLM_SERVER_DEV_MODE=1 in its environment", "llama.cpp": "--slot-save-path"}
"""What an engine needs to have its cache emptied from outside."""


def drivable(known: Known, model: str) -> tuple[str | None, str | None]:
    """(None, None) when a run can be made; else the reason why not, and a hint."""
    if known.primary is not None:
        return None, None
    if known.web_pages and not known.no_pages:
        reason = "the server is no API: it answers everything with web pages (HTML)"
        return reason, "look at the URL: its port, and its path, which often ends in /v1"
    hint = "look at the evidence of the endpoints" if model else "the server lists no model: name it with --model"
    return "no endpoint streams an answer", hint


def options(known: Known, model: str) -> list[str]:
    """What to give `workloom run`, beside the URL."""
    chosen = []
    if known.models is None or len(known.models) != 1:
        chosen.append(f"--model {model}")
    if known.primary not in (None, "chat"):
        chosen.append(f"--endpoint {known.primary}")
    if known.limit_field != "max_tokens":
        chosen.append(f"--limit-field {known.limit_field}")
    if not known.exact_count:
        chosen.append("--output cap")
    else:
        chosen.append("--output exact")
        chosen += [f"--body {name}=null" for name in known.exact_refused]
    if known.max_model_len:
        chosen.append(f"--max-context {known.max_model_len}")
    return chosen


def sentences(known: Known, findings: Mapping[str, Finding]) -> list[str]:
    """What a user should know, most important first; of a server that no run can be made with, nothing."""
    if known.primary is None:
        return []
    said = [
        _lengths(known, findings),
        _counts(findings),
        _words(known),
        _cached(known, findings),
        _tools(known, findings),
        _after(known.family or "", findings),
    ]
    return [sentence for group in said for sentence in group]


def _verdict(findings: Mapping[str, Finding], name: str) -> str | None:
    return findings[name].verdict if name in findings else None


def _lengths(known: Known, findings: Mapping[str, Finding]) -> list[str]:
    if known.exact_count:
        out = ["`--output exact` works: answers get the tokens that were asked for."]
        if _verdict(findings, "ignore_eos") == "unknown":
            out.append("No answer ended early of itself, so whether ignore_eos or min_tokens does it is not known.")
        return out
    verdict = _verdict(findings, "exact_length")
    if verdict is None:
        return []
    if verdict == "unknown" and known.exact_refused != ["ignore_eos", "min_tokens"]:
        return ["Whether exact output lengths work was not found out: check again with a longer `--timeout`."]
    return ["Exact output lengths do not work here: use `--output cap` and look at asked and counted output tokens."]


def _counts(findings: Mapping[str, Finding]) -> list[str]:
    out = []
    if _verdict(findings, "usage") == "no":
        out.append("Token counts are those of chunks: the server sends no usage.")
    elif _verdict(findings, "chunk_per_token") == "no":
        out.append("Chunks are not tokens here: count tokens by usage, and take gaps between chunks as they are.")
    if _verdict(findings, "end_mark") == "no":
        out.append("A stream that is cut short between two events cannot be told from a complete one.")
    return out


def _words(known: Known) -> list[str]:
    rate, rest = known.tokens_per_word, known.overhead_tokens
    if rate is None:
        return ["Without usage the length of prompts cannot be corrected: what is planned is what is sent, in words."]
    if rate != 1:
        return [
            f"A word is {rate:.4g} tokens, so a first prompt comes out that much longer than planned: give the model's "
            "`--tokenizer`; `--correct on` (the default) mends the turns that follow."
        ]
    more = f", but for {rest} tokens of the template, which `--correct on` (the default) takes off" if rest else ""
    return [f"Prompts are as long as planned{more}."]


def _cached(known: Known, findings: Mapping[str, Finding]) -> list[str]:
    if _verdict(findings, "cached_tokens") != "no":
        return []
    flag = _CACHE_FLAGS.get(known.family or "")
    if "stays 0" in findings["cached_tokens"].evidence:
        return ["The prefix cache serves nothing: is it turned on, and are its blocks shorter than 600 tokens?"]
    start = f": start {known.family} with {flag}" if flag else ""
    rest = "; hit rates come from its metrics alone" if known.family else "; hit rates cannot be known"
    return [f"Cached tokens are not told{start}{rest}."]


def _tools(known: Known, findings: Mapping[str, Finding]) -> list[str]:
    if _verdict(findings, "tools_array") in ("ignored", "no"):
        return ["Leave `--tools` off: a tools array does not reach the prompt, definitions as text do."]
    if _verdict(findings, "tool_message") in ("ignored", "no"):
        return ["Leave `--tools` off: messages of role tool do not reach the prompt, results as user text do."]
    if not known.auto_tools:
        return ["`--tools` needs `--body 'tool_choice=\"none\"'` here."]
    return []


def _after(family: str, findings: Mapping[str, Finding]) -> list[str]:
    out = []
    if _verdict(findings, "wrong_model") == "ignored":
        out.append("Any model name is served: see for yourself that it is the right one.")
    if _verdict(findings, "drop_stops") == "no":
        out.append("Calls that are given up go on loading the server: time-outs and aborted turns disturb a run.")
    if _verdict(findings, "metrics") != "yes":
        out.append("The server's side (queue, KV use, hits) stays unseen: it has no metrics that are known.")
    if _verdict(findings, "reset_cache") == "yes":
        out.append("The prefix cache can be emptied before a run: `--reset-cache`.")
    elif family in _RESET_SETTINGS:
        out.append(f"For `--reset-cache`, {family} must be started with {_RESET_SETTINGS[family]}.")
    if "AFTER IT" in (findings["too_long_prompt"].evidence if "too_long_prompt" in findings else ""):
        out.append("The server did not get over a prompt that was too long: restart it, and keep to `--max-context`.")
    return out
