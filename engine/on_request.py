"""Features that are computed when they are asked for: from values that a request brings and stored features.

A group declares typed request inputs. A feature whose expression reads one, itself or through another feature, is
computed on request: it is never ingested and never stored. It is computed by the same compiled expression and the same
`Transformer` as on ingestion, over a frame in which request inputs and stored features are the given columns; online
these are a request and what Redis holds, for training a spine and what was joined to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from engine.errors import InvalidDefinition, Problem
from engine.expressions import references_of
from engine.schema import FeatureColumn, Field, GroupSchema, Transformation
from engine.status import INVALID, NULL_VALUE, PRESENT
from engine.transformations import Transformer, compile_group
from engine.validation import Validation

_MAY_READ = "a feature that is computed on request reads request inputs and features of its group"


def divided(
    features: Iterable[FeatureColumn], request_inputs: Iterable[Field]
) -> tuple[tuple[FeatureColumn, ...], tuple[FeatureColumn, ...]]:
    """The features that rows hold, and those that are computed on request; both in their order."""
    features = tuple(features)
    reached = {field.name for field in request_inputs}
    if not reached:
        return features, ()
    reads = {feature.name: _reads(feature.transformation) for feature in features if feature.transformation}
    found: set[str] = set()
    while new := {name for name, names in reads.items() if names & reached} - found:
        found |= new
        reached |= new
    stored = tuple(feature for feature in features if feature.name not in found)
    return stored, tuple(feature for feature in features if feature.name in found)


def _reads(how: Transformation) -> frozenset[str]:
    return references_of(how.expression) if how.expression else frozenset(how.arguments)


def problems_of(schema: GroupSchema) -> list[Problem]:
    """Everything wrong with the features of a schema that are computed on request, each under the feature's name."""
    problems = list(_problems(schema))
    # What was named above is no unknown column here.
    hidden = [*schema.join_keys, *schema.inputs]
    others = [feature for feature in schema.on_request if not _is_expression(feature)]
    given = [*schema.request_inputs, *_fields(schema.features), *hidden, *_fields(others)]
    computed = tuple(feature for feature in schema.on_request if _is_expression(feature))
    try:
        compile_group(_schema(schema.group, given, computed))
    except InvalidDefinition as error:
        problems += error.problems
    return problems


def _problems(schema: GroupSchema) -> Iterator[Problem]:
    hidden = {key.name: "a join key" for key in schema.join_keys}
    hidden |= {field.name: "an input, which no reader has" for field in schema.inputs}
    for feature in schema.on_request:
        if not _is_expression(feature):
            detail = "it reads values of the request, so only an expression can compute it; functions run on ingestion"
            yield Problem(feature.name, detail)
        for name in sorted(_reads(feature.transformation or Transformation()) & hidden.keys()):
            yield Problem(feature.name, f"{name} is {hidden[name]}; {_MAY_READ}")
        if feature.validation != Validation():
            detail = "the feature is computed on request, and rules are for what is stored; leave them out"
            yield Problem(f"{feature.name}/validation", detail)


def _is_expression(feature: FeatureColumn) -> bool:
    return feature.transformation is not None and bool(feature.transformation.expression)


def _fields(features: Iterable[FeatureColumn]) -> list[Field]:
    return [Field(feature.name, feature.dtype) for feature in features]


def _schema(group: str, given: Sequence[Field], features: tuple[FeatureColumn, ...]) -> GroupSchema:
    """What `compile_group` has to see: a group that is given what a request, and a store, bring."""
    return GroupSchema(group, 1, 0, (), features, tuple(dict.fromkeys(given)))


@dataclass(frozen=True)
class Computed:
    """One feature of many rows, its column of the feature's dtype: null where there is no value to be had.

    failed: true for the rows that it could not be computed for; None when there are none.
    """

    values: pl.Series
    failed: pl.Series | None

    def statuses(self) -> pl.Series:
        """PRESENT; NULL_VALUE where the expression gives null; INVALID where it could not be computed."""
        if self.failed is None and not self.values.null_count():
            return pl.repeat(PRESENT, len(self.values), dtype=pl.String, eager=True)
        found = pl.when(pl.lit(self.values.is_null())).then(pl.lit(NULL_VALUE)).otherwise(pl.lit(PRESENT))
        if self.failed is not None:
            found = pl.when(pl.lit(self.failed)).then(pl.lit(INVALID)).otherwise(found)
        return pl.select(found).to_series()


@dataclass(frozen=True)
class Computation:
    """Features of one group that are computed on request, with all that they need; made by `computation_of`.

    request_inputs, stored: the columns that are read. `features` has what is asked for, and the features that are
    computed on request themselves and read on the way.
    """

    group: str
    request_inputs: tuple[Field, ...]
    stored: tuple[Field, ...]
    features: tuple[FeatureColumn, ...]

    @cached_property
    def _transformer(self) -> Transformer:
        return compile_group(_schema(self.group, [*self.request_inputs, *self.stored], self.features))

    def compute(self, frame: pl.DataFrame, unusable: Mapping[str, pl.Series] | None = None) -> dict[str, Computed]:
        """Each feature for the rows of a frame that has the columns of `request_inputs` and `stored`, in their dtypes.

        `unusable` marks the rows of stored columns that could not be read: what reads them failed too. Every row is
        computed as if it were alone.
        """
        computed, _, broken = self._transformer.traced(frame, unusable or {})
        return {f.name: Computed(computed[f.name], broken.get(f.name)) for f in self.features}


def computation_of(schema: GroupSchema, names: Iterable[str]) -> Computation:
    """What computes the features `names`, which are on request, of a schema that `problems_of` finds no problem in."""
    by_name = {feature.name: feature for feature in schema.on_request}
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            how = by_name[name].transformation if name in by_name else None
            waiting += _reads(how) if how else ()
    return Computation(
        schema.group,
        tuple(field for field in schema.request_inputs if field.name in needed),
        tuple(field for field in _fields(schema.features) if field.name in needed),
        tuple(feature for feature in schema.on_request if feature.name in needed),
    )
