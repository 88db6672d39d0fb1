"""No text leaves an import, and no identity: secrets are planted in every field of every format and looked for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from samples import samples, save
from strategies import sessions

from workloom.cli.options import PrivacyOptions, TraceOptions
from workloom.cli.traces import import_
from workloom.session import Call, Recorded, Session, prompt_tokens, validate
from workloom.traces import READERS, native, open_trace
from workloom.traces.losses import losses
from workloom.traces.privacy import Privacy, anonymous, salt

SALT = Privacy(salt("a phrase"))


def text(field: str) -> str:
    return f"SECRETTEXT {field}"


def name(field: str) -> str:
    return f"SECRETNAME-{field}"


def imported(source: Path, out: Path, **options: bool) -> bytes:
    import_([str(source)], str(out), False, TraceOptions(), PrivacyOptions(**options))
    return out.read_bytes()


def test_every_format_has_a_sample() -> None:
    assert set(samples()) == set(READERS)


@pytest.mark.parametrize("format", samples())
def test_no_text_of_any_field_is_kept(tmp_path: Path, format: str) -> None:
    files = samples()[format](text, name)
    planted = b"".join(files.values())
    assert b"SECRETTEXT" in planted, "a sample without secrets shows nothing"
    source = save(tmp_path / "source", files)
    kept = imported(source, tmp_path / "kept.jsonl")
    assert b"SECRETTEXT" not in kept
    hashed = imported(source, tmp_path / "hashed.jsonl", hash_names=True)
    assert b"SECRET" not in hashed
    assert len(list(open_trace([tmp_path / "hashed.jsonl"]))) == len(list(open_trace([source])))


@pytest.mark.parametrize("format", samples())
def test_two_imports_cannot_be_linked_but_say_the_same(tmp_path: Path, format: str) -> None:
    source = save(tmp_path / "source", samples()[format](text, name))
    imported(source, tmp_path / "one.jsonl")
    imported(source, tmp_path / "two.jsonl")
    one, two = list(open_trace([tmp_path / "one.jsonl"])), list(open_trace([tmp_path / "two.jsonl"]))
    assert not identities(one) & identities(two)
    for a, b in zip(one, two, strict=True):
        assert set(losses(a, b)) <= {"sessions have other ids", "sessions with other user"}


def identities(trace: list[Session]) -> set[str]:
    """All that is a digest under the salt."""
    spans = {span.name for session in trace for call in session.calls for span in call.spans}
    return spans | {session.id for session in trace} | {session.user for session in trace if session.user}


@settings(max_examples=30, deadline=None)
@given(sessions(recorded=True, stop_after=True))
def test_an_anonymous_session_is_the_same_workload(session: Session) -> None:
    after = anonymous(session, SALT)
    validate(after)
    assert list(prompt_tokens(after).values()) == list(prompt_tokens(session).values())
    renamed = {"sessions have other ids", "calls with other agent", "sessions with other user"}
    assert set(losses(session, after)) <= renamed
    assert anonymous(session, SALT) == after, "one salt gives one result"


def test_a_phrase_gives_equal_ids_again_and_no_phrase_never(tmp_path: Path) -> None:
    assert salt("x") == salt("x") != salt("y")
    assert salt(None) != salt(None)


def test_text_is_kept_when_asked(tmp_path: Path) -> None:
    source = save(tmp_path / "source", samples()["native"](text, name))
    assert b"SECRETTEXT answer" in imported(source, tmp_path / "kept.jsonl", keep_text=True)


def test_shared_spans_stay_shared(tmp_path: Path) -> None:
    files = samples()["native"](text, name)
    line = files["t.jsonl"].split(b"\n")[1]
    other = msgspec.json.decode(line, type=Session)
    both = [other, msgspec.structs.replace(other, id="another")]
    native.write(tmp_path / "two.jsonl", native.header(save(tmp_path, files) / "t.jsonl"), both)
    out = tmp_path / "out.jsonl.zst"
    import_([str(tmp_path / "two.jsonl")], str(out), False, TraceOptions(), PrivacyOptions())
    assert b"SECRETTEXT" not in zstandard.ZstdDecompressor().stream_reader(out.open("rb")).read()
    one, two = open_trace([out])
    assert one.id != two.id
    assert [call.spans for call in one.calls] == [call.spans for call in two.calls]


def test_what_is_estimated_stays_marked_and_texts_there_do_not() -> None:
    marked = Recorded(estimated=("prompt_tokens", "output_tokens", "SECRETTEXT"))
    session = Session("s", (Call("a", 3, recorded=marked),))
    after = anonymous(session, SALT).calls[0].recorded
    assert after is not None and after.estimated == ("prompt_tokens", "output_tokens")
