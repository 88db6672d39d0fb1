"""Environments of engines are made once, again when their lock changes, and their lack is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engines import install


def test_a_folder_is_filled_once_and_again_for_another_recipe(tmp_path: Path) -> None:
    folder, made = tmp_path / "engine", []

    def make() -> None:
        made.append(sorted(path.name for path in folder.iterdir()))
        (folder / "installed").touch()

    for recipe in ("one", "one", "two", "two"):
        install.once(folder, recipe, make)
    assert made == [[], []]


def test_what_broke_off_is_made_again(tmp_path: Path) -> None:
    def broken() -> None:
        (tmp_path / "engine" / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        install.once(tmp_path / "engine", "one", broken)
    install.once(tmp_path / "engine", "one", lambda: None)
    assert not (tmp_path / "engine" / "half").exists()


def test_processes_wait_for_one_another(tmp_path: Path) -> None:
    """As the workers of pytest-xdist do: one fills the folder, the others use it."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from engines import install\n"
        "def make(): time.sleep(0.3); print('made')\n"
        "install.once(Path(sys.argv[2]), 'one', make)"
    )
    command = [sys.executable, "-c", program, str(install.HERE.parent), str(tmp_path / "engine")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=30)[0] for process in both) == ["", "made\n"]


@pytest.mark.parametrize(
    ("said", "required", "outcome"),
    [
        ("Failed to establish a new connection: NewConnectionError", "", pytest.skip.Exception),
        ("Failed to establish a new connection: NewConnectionError", "required", pytest.fail.Exception),
        ("No matching distribution found for xllamacpp==0", "", pytest.fail.Exception),
    ],
)
def test_only_an_index_out_of_reach_is_a_reason_to_skip(
    monkeypatch: pytest.MonkeyPatch, said: str, required: str, outcome: type[BaseException]
) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setenv(install.REQUIRED, required)
    with pytest.raises(outcome):
        install.pip("-r", "lock.txt")(Path("python"))
