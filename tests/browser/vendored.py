"""Files of others that are committed here, since nothing is loaded from elsewhere: `make vendor` fetches them anew.

Each lies in `vendor/<name>/<version>/` with its licence and a `vendor.json` of {name, version, licence, files}, where
`files` has the SHA-384 of each; a test compares these (tests/browser/test_vendored.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurehub.environment import PROJECT


@dataclass(frozen=True, slots=True)
class Vendored:
    """One package of npm. files: what is taken, as the package has it, and what it is called here."""

    name: str
    version: str
    licence: str
    folder: Path
    files: Mapping[str, str]


VENDORED = (
    Vendored(
        "@tabler/core",
        "1.4.0",
        "MIT",
        PROJECT / "catalog" / "static" / "vendor" / "tabler" / "1.4.0",
        # Its licence is in its repository only, and so is kept as it is here.
        {"dist/css/tabler.min.css": "tabler.min.css"},
    ),
    Vendored(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        PROJECT / "tests" / "browser" / "vendor" / "axe-core" / "4.14.1",
        {"axe.min.js": "axe.min.js", "LICENSE": "LICENSE", "LICENSE-3RD-PARTY.txt": "LICENSE-3RD-PARTY.txt"},
    ),
)
#: It names a file that is not taken.
SOURCE_MAP = b"/*# sourceMappingURL="


def main() -> None:
    for package in VENDORED:
        fetch(package)
        write_manifest(package)
        print(f"{package.name} {package.version}: {package.folder.relative_to(PROJECT)}")


def fetch(package: Vendored) -> None:
    """Put the package's files into its folder, as npm's registry has them."""
    package.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        npm = shutil.which("npm")
        assert npm, "npm is not installed"
        asked = f"{package.name}@{package.version}"
        subprocess.run([npm, "pack", asked, "--pack-destination", temporary, "--silent"], check=True, cwd=temporary)
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(temporary, filter="data")
        for source, name in package.files.items():
            content = (Path(temporary) / "package" / source).read_bytes()
            (package.folder / name).write_bytes(content.partition(SOURCE_MAP)[0])


def manifest(package: Vendored) -> dict[str, Any]:
    """What vendor.json says of the package's folder as it is."""
    files = sorted(path for path in package.folder.iterdir() if path.name != "vendor.json")
    digests = {path.name: hashlib.sha384(path.read_bytes()).hexdigest() for path in files}
    return {"name": package.name, "version": package.version, "licence": package.licence, "files": digests}


def write_manifest(package: Vendored) -> None:
    (package.folder / "vendor.json").write_text(json.dumps(manifest(package), indent=2) + "\n")


if __name__ == "__main__":
    main()
