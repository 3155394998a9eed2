"""docs/settings.md lists every setting, and nothing else."""

from __future__ import annotations

import re

from featurehub.environment import PROJECT, REQUIRED, SETTINGS

PAGE = (PROJECT / "docs" / "settings.md").read_text()
ROWS = {row[1]: row[2] for row in re.finditer(r"^\| `([A-Z_]+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)}


def test_every_setting_is_on_the_page_and_every_row_is_a_setting() -> None:
    assert sorted(ROWS) == sorted(SETTINGS)


def test_the_page_names_no_variable_that_is_not_a_setting() -> None:
    named = set(re.findall(r"`((?:FEATUREHUB_|[A-Z]+_)[A-Z_]*[A-Z])`", PAGE))
    assert named <= SETTINGS.keys()


def test_plain_defaults_on_the_page_are_those_of_the_table() -> None:
    plain = {name: each.default for name, each in SETTINGS.items() if isinstance(each.default, (int, float, str))}
    assert len(plain) > 10
    for name, default in plain.items():
        written = str(default).lower() if isinstance(default, bool) else str(default)
        assert ROWS[name].split(";")[0] == f"`{written}`", name


def test_required_settings_are_called_required() -> None:
    required = {name for name, each in SETTINGS.items() if each.default is REQUIRED}
    assert {name for name, default in ROWS.items() if "required" in default} == required
