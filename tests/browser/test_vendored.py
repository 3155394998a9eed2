"""What was taken from others is as it was when it was taken, and says whose it is."""

from __future__ import annotations

import json

import pytest

from featurehub.environment import PROJECT
from tests.browser.vendored import VENDORED, Vendored, manifest


@pytest.mark.parametrize("package", VENDORED, ids=lambda package: package.name)
def test_vendored_files_have_the_hashes_of_their_manifest(package: Vendored) -> None:
    assert json.loads((package.folder / "vendor.json").read_text()) == manifest(package)
    assert "LICENSE" in manifest(package)["files"]


def test_every_vendored_folder_is_known() -> None:
    folders = [*(PROJECT / "catalog" / "static" / "vendor").glob("*/*"), *PROJECT.glob("tests/browser/vendor/*/*")]
    assert sorted(folders) == sorted(package.folder for package in VENDORED)


def test_no_vendored_file_asks_for_its_source_map() -> None:
    files = [package.folder / name for package in VENDORED for name in package.files.values()]
    assert [file for file in files if b"sourceMappingURL" in file.read_bytes()[-200:]] == []
