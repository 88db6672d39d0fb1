"""Files of settings: every fault of a file is told at once, with its line, its place and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from workloom import config
from workloom.errors import WorkloadError
from workloom.model.workload.file import load

Share = Annotated[float, Meta(ge=0, le=1)]


class Round(Struct, frozen=True, forbid_unknown_fields=True, tag_field="shape", tag="round"):
    radius: float


class Square(Struct, frozen=True, forbid_unknown_fields=True, tag_field="shape", tag="square"):
    side: float
    corners: int = 4


class Box(Struct, frozen=True, forbid_unknown_fields=True):
    """Something of everything a file may hold."""

    name: str
    lid: Round | Square
    share: Share = 0.5
    inner: tuple[Box, ...] = ()
    weights: dict[Literal["heavy", "light"], Share] = {}
    numbered: dict[int, str] = {}
    bottom: Round | Square | None = None
    open: bool = False

    def __post_init__(self) -> None:
        if self.share > 0.9:
            raise ValueError("share: a box is never so full\nlid: it would not close")


def faults(tmp_path: Path, text: str | bytes) -> str:
    """What is said of a file that is refused."""
    path = tmp_path / "box.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WorkloadError) as caught:
        config.read(path, Box, WorkloadError, "the box")
    assert caught.value.where == str(path)
    return f"{caught.value.what}\n{caught.value.found or ''}"


def lines(tmp_path: Path, text: str) -> list[str]:
    what, *found = faults(tmp_path, text).splitlines()
    assert what == "the box is malformed"
    return [line.strip() for line in found]


def test_a_file_is_the_struct_it_says(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(
        "name: outer\nlid: {shape: square, side: 3}\nshare: 1.0e-1\nweights: {light: 0}\nnumbered: {3: three}\n"
        "inner:\n  - {name: é, lid: &lid {shape: round, radius: 1.5}}\n  - {name: b, lid: *lid, open: yes}\n",
        "utf-8",
    )
    read = config.read(path, Box, WorkloadError, "the box")
    inner = (Box("é", Round(1.5)), Box("b", Round(1.5), open=True))
    assert read == Box("outer", Square(3.0), 0.1, inner, {"light": 0.0}, {3: "three"})


def test_every_fault_is_told_at_once_with_its_line_and_place(tmp_path: Path) -> None:
    text = """\
nane: outer
lid: {shape: sqare, side: 3}
share: 1.5
weights: {light: half, hevy: 0.1}
numbered: {x: a, 2: 7}
inner:
  - {name: a, lid: 5}
  - name: 3
    lid: {shape: round, radius: big, colour: red}
    bottom: {side: 3}
    open: maybe
  - {}
"""
    assert lines(tmp_path, text) == [
        "line 1, nane: there is no such key; did you mean name?",
        "line 2, lid.shape: expected one of round, square, found sqare; did you mean square?",
        "line 3, share: expected a number <= 1.0, found 1.5",
        "line 4, weights.light: expected a number, found half",
        "line 4, weights.hevy: there is no such key; did you mean heavy? (known: heavy, light)",
        "line 5, numbered.x: a key here is a whole number, not x",
        "line 5, numbered.2: expected text, found 7",
        "line 7, inner[0].lid: expected a mapping such as {shape: round, ...}, found 5",
        "line 8, inner[1].name: expected text, found 3",
        "line 9, inner[1].lid.radius: expected a number, found big",
        "line 9, inner[1].lid.colour: there is no such key (known: shape, radius)",
        "line 10, inner[1].bottom.shape: expected one of round, square, found nothing",
        "line 11, inner[1].open: expected true or false, found maybe",
        "line 12, inner[2]: the key name is missing",
        "line 12, inner[2]: the key lid is missing",
        "top level: the key name is missing",
    ]


def test_what_a_struct_says_of_itself_is_told_by_place(tmp_path: Path) -> None:
    lid = "lid: {shape: round, radius: 1}\n"
    text = f"name: a\n{lid}inner:\n  - name: b\n    {lid}    share: 1\n"
    assert lines(tmp_path, text) == [
        "line 6, inner[0].share: a box is never so full",
        "line 5, inner[0].lid: it would not close",
    ]


def test_a_key_that_is_there_twice_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    text = "name: a\nlid: {shape: round, radius: 1, radius: 2}\ninner:\n  - {name: b, lid: 1}\nname: c\n"
    assert lines(tmp_path, text) == [
        "line 2, lid.radius: the key is there twice (lines 2 and 2)",
        "line 1, name: the key is there twice (lines 1 and 5)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the box is empty"),
        ("# nothing but a comment\n", "the box is empty"),
        ("name: [1\n", "the box is not YAML"),
        ("name: a\n---\nname: b\n", "the box is not YAML"),
        ("name: !!python/object:os.system x\n", "the box is not YAML"),
        ("name: 2024-13-45\n", "the box is not YAML"),
        ("{[1, 2]: 3}\n", "the box is not YAML"),
        (b"\xff\xfe\x00", "the box is not text in UTF-8"),
        ("just words\n", "top level: expected a mapping, found just words"),
        ("- name: a\n", "top level: expected a mapping, found a list"),
        ("null\n", "top level: expected a mapping, found nothing"),
        ("true: 1\nnull: 2\n7: 3\n", "True: there is no such key"),
        ("a: &a [*a]\n", "the box is too large"),
        ("[" * 5000 + "]" * 5000, "the box is nested too deeply"),
    ],
)
def test_what_is_no_such_file_at_all_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in faults(tmp_path, text)


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for i in range(1, 12):
        laughs += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    assert "the box is too large" in faults(tmp_path, laughs)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    assert "the box is too large" in faults(tmp_path, b"#" * (config.LARGEST + 1))


def test_many_faults_are_cut_and_counted(tmp_path: Path) -> None:
    text = "name: a\nlid: {shape: round, radius: 1}\n" + "".join(f"wrong{i}: 1\n" for i in range(config.SHOWN + 5))
    told = lines(tmp_path, text)
    assert len(told) == config.SHOWN + 1 and told[-1] == "and 5 more"


@pytest.mark.parametrize("name", ["nowhere.yaml", "folder.yaml"])
def test_a_file_that_is_not_there_or_a_folder_is_said_to_be_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(WorkloadError, match="the box cannot be read"):
        config.read(tmp_path / name, Box, WorkloadError, "the box")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["round", "a", "", "x: y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Box.__struct_fields__, "shape", "radius", "other"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(values)
@example({"name": "a", "lid": {"shape": "round", "radius": 1}, "bottom": None})
def test_whatever_a_file_holds_it_is_read_or_refused_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(value), "utf-8")
    try:
        assert isinstance(config.read(path, Box, WorkloadError, "the box"), Box)
    except WorkloadError as fault:
        assert str(path) in str(fault)
        for line in str(fault.found).splitlines():
            assert ": " in line


def test_a_workload_with_faults_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("""\
agents:
  main:
    calls: {family: lognormall, median: 15, sigma: 0.82}
    scafold: []
    first: {fresh: 500, output: {family: lognormal, median: -3, sigma: 1}}
    turns:
      humn: {fresh: {family: fixed, value: .inf}, output: {family: quantiles, points: [[0, 5], [1, 3]]}}
      tool: {fresh: {family: fixed, value: 1}, output: {family: fixed, value: 1}, ranks: {output fresh: 0.1}, part: tol}
""")
    with pytest.raises(WorkloadError) as caught:
        load(path)
    told = str(caught.value.found)
    for said in (
        "line 3, agents.main.calls.family: expected one of fixed, uniform,",
        "did you mean lognormal?",
        "agents.main.scafold: there is no such key; did you mean scaffold?",
        "agents.main.first.fresh: expected a mapping such as {family: fixed, ...}, found 500",
        "agents.main.first.output: lognormal: median must be above 0, not -3",
        "agents.main.turns.humn: there is no such key; did you mean human?",
        "agents.main.turns.humn.fresh: fixed: value must be a finite number, not inf",
        "agents.main.turns.humn.output: quantiles: values must not fall, but 3 follows 5 at share 1",
        "agents.main.turns.tool.ranks.output fresh: there is no such key",
        "agents.main.turns.tool.part: invalid enum value",
    ):
        assert said in told


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text("name: b\nlid: {shape: round, radius: 1e3}\nshare: 5e-1\n")
    box = config.read(path, Box, WorkloadError, "the box")
    assert isinstance(box.lid, Round) and (box.lid.radius, box.share) == (1000.0, 0.5)


def test_a_word_that_is_none_of_those_known_gets_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    one = "{family: fixed, value: 1}"
    path.write_text(f"order: cycel\nagents: {{main: {{first: {{fresh: {one}, output: {one}}}}}}}\n")
    with pytest.raises(WorkloadError, match="expected cycle or random, found cycel; did you mean cycle"):
        load(path)
