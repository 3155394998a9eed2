"""What branches do not evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.expressions.conftest import result


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("CASE WHEN b = 0 THEN 0 ELSE a // b END", {"a": 1, "b": 0}, 0),
        ("CASE WHEN b <> 0 THEN a // b END", {"a": 1, "b": 0}, None),
        ("CASE WHEN b <> 0 THEN a // b END", {"a": 1, "b": None}, None),
        ("CASE WHEN b = 0 THEN 1 WHEN a // b > 0 THEN 2 END", {"a": 1, "b": 0}, 1),
        ("IF(b = 0, 0, CAST(s AS BIGINT))", {"b": 0, "s": "x"}, 0),
        ("COALESCE(a, CAST(s AS BIGINT))", {"a": 5, "s": "x"}, 5),
        ("b <> 0 AND a // b > 0", {"a": 1, "b": 0}, False),
        ("b = 0 OR a // b > 0", {"a": 1, "b": 0}, True),
        ("a IN (1, a // b)", {"a": 1, "b": 0}, True),
        ("a BETWEEN 2 AND a // b", {"a": 1, "b": 0}, False),
        ("TRY_CAST(s AS BIGINT) + 1", {"s": "12x"}, None),
    ],
)
def test_a_branch_that_is_not_taken_does_not_raise(text: str, row: Mapping[str, Any], expected: Any) -> None:
    assert result(text, **row) == expected
