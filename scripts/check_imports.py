"""The way of the data is one way: a module imports only from modules above it in this list, or from its own line.

python scripts/check_imports.py        prints every import that goes up, and fails if there is one
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LAYERS = [
    "errors",
    "seeds clock quiet words config",
    "session records prefix",
    "prompt",
    "traces",
    "model",
    "plan",
    "engine",
    "drive",
    "serve",
    "store",
    "metrics",
    "execute",
    "answers",
    "report",
    "cli",
]
FREE_OF = {"engine": {"traces", "model", "plan"}, "serve": {"traces", "model", "plan", "drive"}}
"""Layers above that a module could import and must not: the engine knows nothing of benchmarks."""

ROOT = Path(__file__).parent.parent / "src" / "workloom"
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, part of workloom) of every import, also of those inside functions."""
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module] if node.module != "workloom" else [f"workloom.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "workloom" and len(parts) > 1:
                found.append((node.lineno, parts[1]))
    return found


def main() -> int:
    faults = []
    for path in sorted(ROOT.rglob("*.py")):
        mine = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if mine == "__init__":
            continue
        if mine not in RANK:
            faults.append(f"{path.relative_to(ROOT)}: {mine} has no place in the layers of {Path(__file__).name}")
            continue
        for line, other in imported(ast.parse(path.read_text())):
            if other == "__version__" or other == mine:
                continue
            if other not in RANK or RANK[other] > RANK[mine] or other in FREE_OF.get(mine, set()):
                faults.append(f"{path.relative_to(ROOT)}:{line}: {mine} must not import {other}")
    print("\n".join(faults) or "imports go one way")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
