"""The documents tell the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import Struct, structs

from workloom.errors import BackendError
from workloom.metrics.tool_rules import rules_table
from workloom.plan.scenarios import SCENARIOS, Preset
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.session import Call, Header, Session

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("record", [CallRecord, SessionRecord, ServerSample])
def test_every_column_of_a_run_is_explained(record: type) -> None:
    page = (ROOT / "docs/run-directory.md").read_text()
    missing = [field.name for field in structs.fields(record) if f"`{field.name}`" not in page]
    assert missing == []


def test_the_rules_of_the_verdict_are_those_that_are_applied() -> None:
    page = (ROOT / "docs/live.md").read_text()
    assert rules_table() in page


def test_every_kind_of_fault_is_explained() -> None:
    kinds = re.findall(r"^    ([a-z_]+)  +\w", BackendError.__doc__ or "", re.MULTILINE)
    assert len(kinds) >= 7
    page = (ROOT / "docs/live.md").read_text()
    assert [kind for kind in kinds if f"| `{kind}` |" not in page] == []


SETTINGS = {
    "waits.max_s": "cap on each wait (`--max-wait`)",
    "waits.time_scale": "waits divided by (`--time-scale`)",
    "waits.tree_idle_s": "cap on an idle session tree (`--max-tree-idle`)",
    "waits.system_idle_s": "cap on an idle system (`--max-idle`)",
    "duration_s": "measured (`--duration`)",
    "least_duration_s": "at least",
    "start.low": "sessions begin from (`--start`)",
    "start.high": "to",
    "start.by": "by",
    "warmup.calls_per_slot": "one-token calls a slot (`--warmup-calls`)",
    "warmup.pause_s": "quiet before the window (`--warmup-pause`)",
    "warmup.settle_s": "time under load before it (`--settle`)",
    "warmup.max_s": "longest warm-up (`--warmup-limit`)",
    "warmup.max_failed": "slots whose warm-up may fail (`--warmup-max-failed`)",
    "isolation": "isolation (`--isolation`)",
    "context.max_tokens": "longest call (`--max-context`; none: as the server says)",
    "context.policy": "a longer one (`--context-policy`)",
    "history": "history (`--history`)",
    "output": "output lengths (`--output`)",
    "drain_s": "drain (`--drain`)",
    "timeout_s": "time-out of a call (`--timeout`)",
    "retries": "a failed call is sent again (`--retries`)",
    "max_failed": "the run ends at failed (`--max-failed`)",
    "after_error": "after a failed call (`--after-error`)",
    "one_model": "one model for all agents",
    "endpoint": "API (`--endpoint`)",
    "affinity_headers": "session header (`--session-header`)",
    "body": "extra body fields (`--body`)",
    "seed": "seed (`--seed`)",
}
"""What each field of a preset is called in docs/scenarios.md."""


def settings(preset: Struct, before: str = "") -> dict[str, str]:
    """The fields of a preset as words, those of structs in it too."""
    out: dict[str, str] = {}
    for name in preset.__struct_fields__:
        value = getattr(preset, name)
        if isinstance(value, Struct):
            out |= settings(value, f"{before}{name}.")
        elif value is None or value in ((), {}):
            out[before + name] = "none"
        elif isinstance(value, bool):
            out[before + name] = "yes" if value else "no"
        elif isinstance(value, tuple):
            out[before + name] = ", ".join(f"`{part}`" for part in value)
        elif isinstance(value, str):
            out[before + name] = value
        else:
            share = "max_failed" in name or before == "start."
            out[before + name] = f"{value:.0%}" if share else f"{value:,g}" + " s" * name.endswith("_s")
    return out


def scenarios_table() -> str:
    """SCENARIOS as a table of Markdown: a line for each field of a preset."""
    columns = {name: settings(preset) for name, preset in SCENARIOS.items()}
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for field, words in SETTINGS.items():
        lines.append(f"| {words} | {' | '.join(column.get(field, '-') for column in columns.values())} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_scenarios_says_what_the_presets_set() -> None:
    assert {field.name for field in structs.fields(Preset)} == {name.partition(".")[0] for name in SETTINGS}
    assert {name for preset in SCENARIOS.values() for name in settings(preset)} - set(SETTINGS) <= {"start"}
    assert scenarios_table() in (ROOT / "docs/scenarios.md").read_text()


def test_every_reason_of_the_validity_stamp_is_explained() -> None:
    source = (ROOT / "src/workloom/answers/agentx/validity.py").read_text()
    codes = set(re.findall(r'f?"([a-z]+(?:_[a-z]+)*): ', source)) | set(
        re.findall(r'^ +\("(\w+)", "\w+_s"', source, re.M)
    )
    assert len(codes) >= 17
    page = (ROOT / "docs/scenarios.md").read_text()
    assert {code for code in codes if f"| `{code}` |" not in page} == set()


def test_the_commands_that_are_shown_exist_with_their_options() -> None:
    """Of the pages that say how to run; what help says is in docs/cli.md, which another test keeps true."""
    sections = re.split(r"^## workloom *", (ROOT / "docs/cli.md").read_text(), flags=re.MULTILINE)[1:]
    helps = {section.partition("\n")[0].strip(): section for section in sections}
    shown = 0
    for name in ("README.md", "docs/live.md", "docs/scenarios.md"):
        page = (ROOT / name).read_text().replace("\\\n", " ")
        for line in re.findall(r"^ {4}workloom ([^#&\n]*)", page, re.MULTILINE):
            command = line.split()[0]
            assert command in helps, f"{name}: workloom {line}"
            for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", line):
                shown += 1
                assert re.search(rf"(?<!\S){option}(?!\S)", helps[command]), f"{name}: workloom {line}: {option}"
        for option in set(re.findall(r"`(--[a-z][a-z-]*)", page)):
            assert re.search(rf"(?<!\S){option}(?![\w-])", "".join(sections)) or option in OPTIONS_OF_OTHERS, (
                f"{name}: {option}"
            )
    assert shown > 20


OPTIONS_OF_OTHERS = ("--slot-save-path",)
"""Of servers, not of workloom."""


@pytest.mark.parametrize("noun", [Header, Session, Call])
def test_every_field_of_the_native_format_is_explained(noun: type) -> None:
    page = (ROOT / "docs/formats.md").read_text()
    missing = [field.name for field in structs.fields(noun) if f"`{field.name}`" not in page]
    assert missing == []


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_result_in_the_readme_is_what_the_command_prints(tmp_path: Path) -> None:
    """Numbers only: how the host did is its own."""
    text = (ROOT / "README.md").read_text()
    shown = text.split("-o runs/first\n", 1)[1]
    rows = [line.split() for line in shown.splitlines() if re.match(r"\s+(TTFT|TBC|TPOT|E2E|makespan)\b(?!:)", line)]
    assert len(rows) == 8  # the critical path has a makespan too
    done = subprocess.run(
        [
            *(sys.executable, "-m", "workloom.cli", "run", str(ROOT / "src/workloom/data/canonical.jsonl")),
            *("--concurrency", "8", "--engine", "llama-3.1-70b-h200x4", "-o", str(tmp_path / "first")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [line.split() for line in done.stdout.splitlines()]
    for row in rows:
        assert row in printed


def test_no_registry_host_or_machine_path_is_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = ["py" + "pi.org", "python" + "hosted", "npm" + "js", "deb" + "ian.org", "/wor" + "k/main"]
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            assert not [word for word in words if word in text], name


def test_every_format_is_in_the_table_of_formats_and_has_a_table_of_fields() -> None:
    from workloom.traces import READERS
    from workloom.traces.export import WRITERS

    page = (ROOT / "docs/formats.md").read_text()
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    assert set(READERS) <= set(rows)
    for name in READERS:
        written = rows[name].rstrip("| ").endswith("yes")
        assert written == (name in WRITERS), name
    assert page.count("| field |") + page.count("| column |") >= len(READERS)


def test_the_pages_of_workloads_say_what_the_workloads_are() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/make_workload_pages.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_built_in_workload_has_a_page_and_is_in_the_list() -> None:
    from workloom.model.workload import builtin

    listed = (ROOT / "docs/workloads.md").read_text()
    assert [name for name in builtin.names() if f"(workloads/{name}.md)" not in listed] == []
