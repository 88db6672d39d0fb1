"""workload.yaml: what is written is what is read, short and commented, and described key by key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from msgspec import Struct
from workload_strategies import workloads

from workloom.errors import WorkloadError
from workloom.model.families import FAMILIES, Fixed, Lognormal
from workloom.model.workload import builtin
from workloom.model.workload.file import COMMENTS, WIDTH, dump, keys_said, load, schema, structs
from workloom.model.workload.spec import Agent, Final, First, Scaffold, Turn, Workload

ONE = First(Fixed(100.0), Fixed(10.0))
TURNS = {"tool": Turn(Fixed(5.0), Fixed(5.0))}


def back(tmp_path: Path, text: str) -> Workload:
    path = tmp_path / "w.yaml"
    path.write_text(text, "utf-8")
    return load(path)


@pytest.mark.parametrize("name", builtin.names())
def test_a_built_in_workload_is_written_as_it_is_read(tmp_path: Path, name: str) -> None:
    workload = builtin.builtin(name)
    assert back(tmp_path, dump(workload)) == workload


@settings(max_examples=25, deadline=None)
@given(workloads())
@example(Workload({"a": Agent(ONE)}, about="x" * 200 + ',  y, "z"\\ ' * 40 + "\U0001f600\x7f\ufeff"))
@example(Workload({"a": Agent(ONE, models={"one, two" * 30: 0.5, "#": 0.25, ", " * 80: 0.25})}))
def test_any_workload_is_written_as_it_is_read(tmp_path_factory: pytest.TempPathFactory, workload: Workload) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert back(folder, dump(workload, {"agents": "a note", "name": "another # note: with [signs"})) == workload


def test_a_short_workload_as_it_is_written() -> None:
    workload = Workload(
        {
            "main": Agent(
                ONE,
                calls=Lognormal(15.0, 0.82, zeros=0.25),
                turns={"tool": Turn(Fixed(2.5e-7), Fixed(1e16), ranks={"fresh wait": 0.3})},
                scaffold=(Scaffold("tools", Fixed(5000.0), "trace"),),
                final=Final(Fixed(7.0)),
                pauses={3: 2.0},
            ),
        },
        name="short",
        about="no: more",
    )
    assert (
        dump(workload, {"agents.main.calls": "n 9"})
        == """\
# A workload: edit it, and `workloom synth` makes sessions of it. `workloom schema` describes every key.
workload: 1
name: short
about: "no: more"
agents:
  main:
    # the message behind the scaffold, and the answer to it, in tokens
    first:
      fresh: {family: fixed, value: 100}
      output: {family: fixed, value: 10}
    # calls of one agent in one session
    calls: {family: lognormal, median: 15, sigma: 0.82, zeros: 0.25}  # n 9
    # calls by the gap before them: new tokens, tokens of the answer, seconds waited
    turns:
      tool:
        fresh: {family: fixed, value: 2.5e-07}
        output: {family: fixed, value: 1.0e+16}
        # rank correlations
        ranks: {fresh wait: 0.3}
    # texts a context begins with; shared by: trace (all sessions), session (its agents), agent (nobody)
    scaffold:
      - name: tools
        tokens: {family: fixed, value: 5000}
        shared: trace
    final:
      output: {family: fixed, value: 7}
    # seconds before the call of a number
    pauses: {3: 2}
"""
    )


def test_lines_are_not_longer_than_a_page_and_every_comment_is_said_once() -> None:
    text = dump(builtin.builtin("coding-agent"))
    assert max(map(len, text.splitlines())) <= WIDTH + 8, "a comma may stand at the end"
    said = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert len(set(said)) == len(said)
    for key in ("turns", "memory", "delegates", "scaffold", "compaction"):
        assert f"# {COMMENTS[key]}" in said


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("sessions: [{agent: mian}]", "sessions[0].agent: there is no agent mian; did you mean main?"),
        ("sessions: [{agent: main, count: 3}]", "sessions[0].count: it belongs to order: cycle"),
        ("agents.main.delegates: [{agent: sub}]", "delegates[0].agent: there is no agent sub"),
        ("agents.main.turns: {}", "agents.main.turns: an agent of more than one call needs"),
        ("agents.main.turns.human: {fresh: &f {family: fixed, value: 1}, output: *f}", "turns.human: every turn but"),
        ("agents.main.turns.tool.share: {family: fixed, value: 1}", "turns.tool.share: the first turn takes"),
        ("agents.main.models: {a: 0.5, b: 0.3}", "agents.main.models: shares sum to 0.8, not 1"),
        ("agents.main.memory: {ranks: {calls fresh: 0.1}}", "memory.ranks.calls fresh: there is no such key"),
        ("agents.main.pauses: {1: 3}", "agents.main.pauses.1: a pause comes before the second call"),
        ("agents.main.graph: [[], [0]]", "agents.main.calls: a DAG has none"),
        ("agents.main.widths: [2]", "agents.main.widths: a DAG begins with one call"),
        ("agents.main.widths: [1, 1000000]", "agents.main.widths: a DAG has at most 100,000 calls"),
        ("agents.main.graph: [[], [0], [2]]", "agents.main.graph[2]: a call waits for calls before it, not [2]"),
        ("agents.main.graph: [[0], []]", "agents.main.graph[1]: a call after the first waits for at least one"),
        ("agents.main.graph: [[], [0, 0]]", "agents.main.graph[1]: a call waits for another once"),
        ("agents.main.history_of: {7: 0}\nagents.main.graph: [[], [0]]", "history_of.7: the graph has no such call"),
        (
            "agents.main.scaffold: [{name: a, tokens: &t {family: fixed, value: 1}}, {name: a, tokens: *t}]",
            "agents.main.scaffold[1].name: two texts of one agent are called a",
        ),
        ("agents: {}", "agents: a workload has at least one"),
        ("agents.main.delegates: [{agent: main, levels: 21}]", "levels: expected a whole number <= 20, found 21"),
    ],
)
def test_what_does_not_go_together_is_refused_by_place(tmp_path: Path, edit: str, said: str) -> None:
    plain: Any = yaml.safe_load(dump(Workload({"main": Agent(ONE, calls=Fixed(5.0), turns=TURNS)})))  # type: ignore[arg-type]
    for line in edit.splitlines():
        place, _, value = line.partition(": ")
        *above, last = place.split(".")
        inside = plain
        for key in above:
            inside = inside[key]
        inside[last] = yaml.safe_load(value)
    with pytest.raises(WorkloadError) as caught:
        back(tmp_path, yaml.safe_dump(plain, sort_keys=False))
    assert said in str(caught.value.found)


def test_faults_of_several_agents_are_told_together(tmp_path: Path) -> None:
    text = dump(Workload({"one": Agent(ONE), "two": Agent(ONE)}))
    text = text.replace("  two:", "    models: {a: 0.5}\n  two:\n    pauses: {0: 1}\n    delegates: [{agent: tow}]")
    with pytest.raises(WorkloadError) as caught:
        back(tmp_path, text)
    told = str(caught.value.found).splitlines()
    assert [line.strip().partition(", ")[2].partition(": ")[0] for line in told] == [
        "agents.one.models",
        "agents.two.delegates[0].agent",
        "agents.two.pauses.0",
    ]


# ------------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize("struct", structs(), ids=lambda struct: struct.__name__)
def test_every_key_is_described_where_its_struct_is(struct: type[Struct]) -> None:
    said = " ".join(base.__doc__ or "" for base in struct.__mro__)
    assert struct.__doc__
    for field in struct.__struct_fields__:
        if struct.__module__ == Workload.__module__:
            assert field in keys_said(struct.__doc__), f"{struct.__name__}.{field}"
        else:
            assert re.search(rf"\b{field.rsplit('_', 1)[-1]}\b", said), f"{struct.__name__}.{field}"


def test_structs_are_all_that_a_file_is_made_of() -> None:
    found = {struct.__name__ for struct in structs()}
    assert {"Workload", "Agent", "Turn", "Delegate", "Compaction", "Retry", "Kind"} <= found
    assert {family.__name__ for family in FAMILIES.values()} <= found


def resolve(node: dict[str, Any], whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a node, references followed."""
    if "$ref" in node:
        return resolve(whole["$defs"][node["$ref"].rsplit("/", 1)[1]], whole)
    if "anyOf" in node:
        return [part for inner in node["anyOf"] for part in resolve(inner, whole)]
    return [node]


def fits(value: Any, node: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether a value is what a JSON Schema asks for: the parts of the standard that ours use."""
    return any(_fits(value, kind, whole) for kind in resolve(node, whole))


def _fits(value: Any, kind: dict[str, Any], whole: dict[str, Any]) -> bool:
    if "enum" in kind:
        return value in kind["enum"]
    match kind.get("type"):
        case "object":
            if not isinstance(value, dict) or not set(kind.get("required", ())) <= set(value):
                return False
            known, other = kind.get("properties", {}), kind.get("additionalProperties", True)
            for key, inner in value.items():
                node = known.get(key, other)
                if node is False or (isinstance(node, dict) and not fits(inner, node, whole)):
                    return False
            return True
        case "array":
            items, first = kind.get("items"), kind.get("prefixItems", [])
            rest = value[len(first) :] if isinstance(value, list) else []
            return isinstance(value, list) and all(
                fits(inner, node, whole)
                for inner, node in [*zip(value, first, strict=False), *((v, items) for v in rest)]
                if isinstance(node, dict)
            )
        case "string":
            return isinstance(value, str)
        case "number" | "integer":
            return isinstance(value, int | float) and kind.get("minimum", value) <= value <= kind.get("maximum", value)
        case "null":
            return value is None
        case kind_of:
            raise AssertionError(f"a kind that no test knows: {kind_of}")


@pytest.mark.parametrize("name", builtin.names())
def test_the_schema_takes_the_built_in_workloads_and_no_key_that_is_spelled_wrong(name: str) -> None:
    whole = schema()
    plain = yaml.safe_load((builtin.FOLDER / f"{name}.yaml").read_text("utf-8"))
    assert fits(plain, whole, whole)

    def mappings(value: Any, key: str = "") -> list[tuple[str, dict[str, Any]]]:
        inner = (
            value.items() if isinstance(value, dict) else ((key, v) for v in value) if isinstance(value, list) else ()
        )
        below = [found for name, item in inner for found in mappings(item, name)]
        return [(key, value), *below] if isinstance(value, dict) else below

    for key, mapping in mappings(plain):
        mapping["mispelled"] = {"family": "fixed", "value": 0}
        assert key in ("agents", "models", "pauses") or not fits(plain, whole, whole), key
        del mapping["mispelled"]


def test_every_struct_of_the_schema_is_closed_and_described() -> None:
    whole = schema()
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    described = [struct for struct in structs() if struct.__name__ in whole["$defs"]]
    assert len(described) == len(structs())
    for node in whole["$defs"].values():
        assert node["additionalProperties"] is False
        assert node["description"] and "\n" not in node["description"]
    turn = whole["$defs"]["Turn"]["properties"]
    assert turn["wait"]["description"] == "seconds from the end of the call before."
    assert turn["share"]["description"].endswith("the first turn listed takes what the others leave.")
