"""The point-in-time rule, stated once; every engine is tested against loops that follow it word by word.

For a spine row with join keys `k` and time `t`:

1. Candidates are the group's rows of `k` with `event_timestamp <= t`. With `known_at` also
   `created_timestamp <= t`: what the hub had received by then, which a model served at `t` could have seen.
2. Of the candidates the last in the version order counts:
   `(event_timestamp, created_timestamp, _accepted, _ordinal)`. Where a row lies and when its file was written
   does not matter.
3. No candidate, or that row is a tombstone (`_deleted`): every feature is NOT_FOUND. An older row does not
   show through a tombstone.
4. A feature that is not part of that row's schema (`_schema`) is NOT_FOUND: the row was written before it.
5. If `t - event_timestamp > ttl`, the value is withheld: OUTSIDE_MAX_AGE. Exactly `ttl` old is still served.
6. Otherwise the stored value: NULL_VALUE if it is null, PRESENT if not.

Features that are computed on request (engine/on_request.py) come last: from these values and the spine's columns.

In 3 to 5 the value is null. Every spine row gives exactly one row, in the spine's order, equal ones included.

Example. Customer C1, ttl 10 days, day and hour of one month; the rows' names stand for their values:

    row   event     created   _accepted   deleted
    a     01 00:00  01 00:00  1
    b     05 00:00  05 00:00  2
    c     05 00:00  08 00:00  3                      corrects b
    d     20 00:00  20 00:00  4           yes

    t              answer    known_at   why
    04 00:00       a         a
    05 00:00       c         b          an event at t counts; c was received on the 8th
    15 00:00       c         c          exactly ten days old
    15 00:00:01    withheld  withheld   OUTSIDE_MAX_AGE
    20 00:00       nothing   nothing    NOT_FOUND: deleted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from engine.on_request import Computation
from engine.schema import Dtype, Field

#: What the column with a feature's status is called: the feature's output name and this.
STATUS_SUFFIX = "__status"
#: Names that begin so belong to the engines; a spine cannot have them.
RESERVED_PREFIX = "__fh_"


@dataclass(frozen=True, slots=True)
class HistoryFeature:
    """One feature to join: `name` is its column in the group's files, `output` its column in the result.

    Rows whose `_schema` is not in `schema_ids` were written without the feature; None: every row has it.
    """

    name: str
    output: str
    dtype: Dtype
    schema_ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class GroupHistory:
    """What one group brings to a join: the Parquet files of one table version, and how to read them.

    files: local paths, in any order; none for a group without rows. A file may lack columns that came later.
    keys:  the entity's join keys; the spine has columns of these names.
    ttl:   None withholds nothing for its age.
    """

    group: str
    files: tuple[str, ...]
    keys: tuple[Field, ...]
    ttl: timedelta | None
    features: tuple[HistoryFeature, ...]


@dataclass(frozen=True, slots=True)
class OnRequest:
    """Features of one group that are computed on request: for training from columns of the spine and joined features.

    The spine has a column for each of the computation's request inputs. `stored` gives the output of each of its stored
    features in the join; one that nobody asked for has a name with RESERVED_PREFIX and is no column of the result.
    `outputs` has each asked feature with its column in the result. A stored feature without a value is null to the
    expression, as it is online.
    """

    computation: Computation
    stored: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]

    def dtypes(self) -> dict[str, Dtype]:
        """The dtype of each output."""
        dtypes = {feature.name: feature.dtype for feature in self.computation.features}
        return {output: dtypes[name] for name, output in self.outputs}


def output_names(features: tuple[HistoryFeature, ...], statuses: bool) -> tuple[str, ...]:
    """The result's columns after the spine's: the values in order, then their statuses if asked for."""
    return with_statuses([feature.output for feature in features], statuses)


def with_statuses(outputs: Sequence[str], statuses: bool) -> tuple[str, ...]:
    """Outputs, and behind them their statuses if asked for."""
    return (*outputs, *(name + STATUS_SUFFIX for name in outputs if statuses))
