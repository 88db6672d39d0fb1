"""Put the answers under the queries of docs/queries.md, or with --check compare them.

    scripts/make_queries_docs.py            runs the canonical workload, then every query of the page
    scripts/make_queries_docs.py --check    fails if the page is not what they answer

A query is a block of `sql`; the block behind it is its answer, as `workloom sql` prints it.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "queries.md"
BLOCK = re.compile(r"```sql\n(?P<query>.*?)\n```\n\n```text\n(?P<answer>.*?)```\n", re.DOTALL)


def canonical(folder: Path) -> Path:
    """The run that the page asks: the canonical workload as `make run` runs it."""
    from workloom.cli.app import app

    run = folder / "canonical"
    words = ["run", str(ROOT / "src/workloom/data/canonical.jsonl"), "--concurrency", "8"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app([*words, "--engine", "llama-3.1-70b-h200x4", "-o", str(run)], result_action="return_value")
    return run


def answer(run: Path, query: str) -> str:
    """What `workloom sql` prints for it."""
    from workloom.cli.sql import sql

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        sql([str(run), query], False, False, 200)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def page(text: str, ask: Callable[[str], str]) -> str:
    """The page with the answers that its queries have now."""
    return BLOCK.sub(lambda m: f"```sql\n{m['query']}\n```\n\n```text\n{ask(m['query'])}```\n", text)


def main() -> int:
    import workloom.cli  # noqa: F401 (hangs the commands on the app)

    there = PAGE.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        run = canonical(Path(folder))
        made = page(there, lambda query: answer(run, query))
    if "--check" in sys.argv:
        if made != there:
            print(f"{PAGE.name} is not what its queries answer: run {Path(__file__).name}")
        return int(made != there)
    PAGE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
