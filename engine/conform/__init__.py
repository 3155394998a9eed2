"""Raw rows in, a typed Polars frame out: a value is cast only where it cannot change, else its row is violated.

`conform_table` takes the columns of a file (Parquet, Arrow, or a CSV read as text), `conform_rows` the objects of a
JSON body; both end in the same columns of the same types. A frame holds, in order, the join keys, EVENT_TIMESTAMP,
CREATED_TIMESTAMP and the given values (inputs, features without a transformation). What is wrong with single values
is a Violation and the value is null; what is wrong with the whole (a column that is missing, unknown or of another
type) raises.

What each type takes, where that is narrower or wider than its name says:

    int64      whole numbers of 64 bits; in a float column of a file the whole ones (pandas writes nullable integers so)
    float64    finite numbers, a whole one only if held exactly; NaN in a file means null, in JSON it is refused
    string     valid UTF-8 without NUL (PostgreSQL cannot store it); `""` is a value
    timestamp  with an offset, whole microseconds, years 1 to 9999 in UTC; text is RFC 3339 without leap seconds
    embedding  exactly `dim` finite numbers, rounded to float32: the one cast that rounds, since 0.1 is no float32
    list       up to MAX_LIST_ITEMS items; a null item is refused
    join key   int64 or string as above, never null; int64 text must be canonical; strings up to MAX_KEY_BYTES bytes
"""

from engine.conform.columns import MAX_CLOCK_SKEW, MAX_LIST_ITEMS, MAX_PROBLEMS, Conformed, check_columns
from engine.conform.table import conform_column, conform_table, misfit
from engine.conform.values import conform_rows, conform_values

__all__ = [
    "MAX_CLOCK_SKEW",
    "MAX_LIST_ITEMS",
    "MAX_PROBLEMS",
    "Conformed",
    "check_columns",
    "conform_column",
    "conform_rows",
    "conform_table",
    "conform_values",
    "misfit",
]
