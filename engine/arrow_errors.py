"""What Arrow says of a CSV, without what it quotes: errors are kept and logged, and rows are of people."""

from __future__ import annotations

import re

_ROW = re.compile(r"(Expected \d+ columns, got \d+): .*", re.DOTALL)
_VALUE = re.compile(r"(invalid value) '.*'", re.DOTALL)


def without_values(said: str) -> str:
    """The text without the row or the value that it ends with.

    >>> without_values("CSV parse error: Expected 3 columns, got 2: C1,2024-11-01")
    'CSV parse error: Expected 3 columns, got 2'
    >>> without_values("In CSV column #0: CSV conversion error to int64: invalid value 'C1'")
    'In CSV column #0: CSV conversion error to int64: invalid value'
    """
    return _VALUE.sub(r"\1", _ROW.sub(r"\1", said))
