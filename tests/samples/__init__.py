"""One small trace of every format, made from its documentation, with something planted in every field of text.

`files(text, name)` gives file names and contents: `text(field)` stands in every field that says something (messages,
ids, paths, users, arguments), `name(field)` where a tool, an agent, a model or a workflow is named.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Plant = Callable[[str], str]
Files = Callable[[Plant, Plant], dict[str, bytes]]


def samples() -> dict[str, Files]:
    """The samples by format; a module of this folder is one."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return {name.replace("_", "-"): import_module(f"samples.{name}").files for name in modules}


def save(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a sample's files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
