"""Write the reference in docs/characterize.md from the docstrings of the results, or with --check compare it.

What stands above the heading HEAD is written by hand and stays.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from workloom.answers.characterize import Characterization

TARGET = Path(__file__).parent.parent / "docs" / "characterize.md"
HEAD = "## Every number of --json"


def reference() -> str:
    """A table of fields for every struct that a characterization is made of."""
    about = "A list of characterizations, one per trace. Taken from the docstrings of the code; a test keeps it true."
    out = [HEAD, "", about]
    for struct in structs(Characterization):
        fields = get_type_hints(struct)
        told = told_of(struct)
        out += ["", f"### struct {struct.__name__}", "", plain(inspect.getdoc(struct) or ""), ""]
        out += ["| field | type | meaning |", "| --- | --- | --- |"]
        for name in struct.__struct_fields__:
            out.append(f"| `{name}` | {kind(fields[name])} | {meaning(told, fields, name)} |")
    return "\n".join(out) + "\n"


def structs(first: type[Struct]) -> list[type[Struct]]:
    """The struct and all that its fields hold, each once, in the order they are met."""
    found = [first]
    for struct in found:
        for hint in get_type_hints(struct).values():
            found += [inner for inner in dict.fromkeys(_inside(hint)) if inner not in found]
    return found


def _inside(hint: Any) -> Iterator[type[Struct]]:
    if isinstance(hint, type) and issubclass(hint, Struct):
        yield hint
    for inner in get_args(hint):
        yield from _inside(inner)


def told_of(struct: type[Struct]) -> dict[str, str]:
    """The docstring behind each field, by its name."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(struct)).body if isinstance(node, ast.ClassDef)]
    told: dict[str, str] = {}
    for field, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            told[field.target.id] = inspect.cleandoc(ast.literal_eval(after.value))
    return told


def meaning(told: dict[str, str], fields: dict[str, Any], name: str) -> str:
    """What a field says: its docstring, else how the struct that it holds begins."""
    hint = fields[name]
    if name in told or not (isinstance(hint, type) and issubclass(hint, Struct)) or hint.__name__ == "Distribution":
        return row(told.get(name, ""))
    return row((inspect.getdoc(hint) or "").split("\n\n")[0])


def kind(hint: Any) -> str:
    """A type in a word or two."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return f"[{hint.__name__}](#struct-{hint.__name__.lower()})"
    name = getattr(hint, "__name__", str(hint))
    inner = [kind(one) for one in get_args(hint) if one not in (type(None), ...)]
    if name in ("tuple", "list"):
        return f"list of {inner[0]}" if len(set(inner)) == 1 else "list of " + " and ".join(inner)
    if name == "dict":
        return f"{inner[1]} by name"
    if name == "Literal":
        return "one of " + ", ".join(map(str, get_args(hint)))
    if inner:
        return " or none".join([" or ".join(inner), ""]) if type(None) in get_args(hint) else " or ".join(inner)
    return {"int": "count", "float": "number", "str": "text", "bool": "true or false"}.get(name, name)


def plain(told: str) -> str:
    """A docstring as Markdown: references by their last name, what is set in columns as it stands."""
    told = re.sub(r":\w+:`(?:[\w.]+\.)?(\w+)`", r"`\1`", told).replace("``", "`")
    if re.search(r"\S {2,}\S", told):
        parts = told.split("\n\n")
        told = "\n\n".join(f"```text\n{part}\n```" if re.search(r"\S {2,}\S", part) else part for part in parts)
    return told


def row(told: str) -> str:
    return " ".join(plain(told).split()).replace("|", "\\|")


def main() -> int:
    written = TARGET.read_text()
    whole = written.split(HEAD, 1)[0] + reference()
    if "--check" in sys.argv:
        if written == whole:
            return 0
        print(f"{TARGET.name} is out of date: run scripts/make_study_docs.py")
        return 1
    TARGET.write_text(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
