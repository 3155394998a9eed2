"""What NULL means to functions of text."""

from __future__ import annotations

from tests.engine.expressions.conftest import result


def test_a_null_length_is_no_missing_length() -> None:
    assert result("SUBSTR('abc', 1, a)", a=None) is None
    assert result("SUBSTR('abc', 2, 1)", a=1) == "b"
