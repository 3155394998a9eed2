"""Logic has three values."""

from __future__ import annotations

import pytest

from tests.engine.expressions.conftest import result


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (True, True, True, True),
        (True, False, False, True),
        (True, None, None, True),
        (False, False, False, False),
        (False, None, False, None),
        (None, None, None, None),
    ],
)
def test_logic_has_three_values(left: bool | None, right: bool | None, both: bool | None, either: bool | None) -> None:
    for one, other in ((left, right), (right, left)):
        assert result("p AND q", p=one, q=other) is both
        assert result("p OR q", p=one, q=other) is either


def test_in_a_list_with_null_is_true_or_unknown() -> None:
    assert result("a IN (1, NULL)", a=1) is True
    assert result("a IN (1, NULL)", a=2) is None
    assert result("a NOT IN (1, NULL)", a=2) is None
