"""The documents tell the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Header, Session

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("record", [CallRecord, SessionRecord])
def test_every_column_of_a_run_is_explained(record: type) -> None:
    page = (ROOT / "docs/run-directory.md").read_text()
    missing = [field.name for field in structs.fields(record) if f"`{field.name}`" not in page]
    assert missing == []


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
    assert len(rows) == 7
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
