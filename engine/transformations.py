"""All derived features of a group: in which order they are computed, by expressions or by Python functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import numpy as np
import polars as pl

from engine.errors import Conflict, InvalidDefinition, Problem, near_names, unknown_name
from engine.expressions import Compiled, compile_expression
from engine.python_functions import Call, Function, imported
from engine.schema import Dtype, FeatureColumn, GroupSchema, Transformation
from engine.violations import Violation

RULE = "transformation"
#: What the columns of errors begin with, and no name of a feature.
_ERROR = "!"


@dataclass(frozen=True)
class _Step:
    """One derived feature: what it reads, and the expression or the call that computes it."""

    name: str
    reads: frozenset[str]
    how: Compiled | Call


@dataclass(frozen=True)
class Transformer:
    """Computes the derived features of one group; made by `compile_group`, safe to share between threads.

    references: for each derived feature the columns that it reads itself.
    """

    schema: GroupSchema
    references: Mapping[str, frozenset[str]]
    levels: tuple[tuple[_Step, ...], ...] = field(repr=False)

    def lineage(self, feature: str) -> frozenset[str]:
        """Every column that a feature is computed from, directly or through others; none for a given one.

        Raises UnknownName.
        """
        if feature not in self.schema.feature_names:
            raise unknown_name("feature", feature, self.schema.feature_names)
        reached: set[str] = set()
        waiting = [feature]
        while waiting:
            new = self.references.get(waiting.pop(), frozenset()) - reached
            reached |= new
            waiting += new
        return frozenset(reached)

    def apply(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Violation]]:
        """`frame` (conformed: join keys and given columns) with every derived feature, in its declared dtype.

        A row that a feature cannot be computed for has null there, and is in a Violation of that feature. What
        depends on that value is null too, and not reported again. Raises InvalidInput when a function that takes a
        whole frame fails, or returns what is no column of its dtype.
        """
        frame, violations, _ = self.traced(frame, {})
        return frame, violations

    def traced(
        self, frame: pl.DataFrame, unusable: Mapping[str, pl.Series]
    ) -> tuple[pl.DataFrame, list[Violation], dict[str, pl.Series]]:
        """As `apply`, and for each column with such rows the mask of those that have no usable value.

        `unusable` gives the masks of given columns: what depends on such a value is null, and not reported.
        """
        violations: list[Violation] = []
        broken: dict[str, pl.Series] = dict(unusable)
        for level in self.levels:
            frame = _evaluated(frame, level)
            for step in level:
                masks = [broken[name] for name in sorted(step.reads & broken.keys())]
                skipped = reduce(or_, masks) if masks else None
                frame, found = _finished(frame, step, skipped)
                violations += [Violation(step.name, RULE, detail, rows) for detail, rows in found.items()]
                if found or skipped is not None:
                    broken[step.name] = _marked(frame.height, found.values(), skipped)
        for name in [name for name in frame.columns if name.startswith(_ERROR)]:
            frame.drop_in_place(name)  # a frame with such columns was made here; `drop` takes 0.1 ms
        return frame, violations, broken


def _evaluated(frame: pl.DataFrame, steps: Sequence[_Step]) -> pl.DataFrame:
    """The frame with the values and the errors of expressions that do not depend on each other."""
    compiled = {step.name: step.how for step in steps if isinstance(step.how, Compiled)}
    columns = [one.value.alias(name) for name, one in compiled.items()]
    columns += [one.error.alias(f"{_ERROR}{name}") for name, one in compiled.items() if one.error is not None]
    if frame.height == 1 and any(one.paired for one in compiled.values()):
        return pl.concat([frame, frame.clear(n=1)]).with_columns(columns).head(1)
    return frame.with_columns(columns)


def _finished(frame: pl.DataFrame, step: _Step, skipped: pl.Series | None) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """The frame with the feature's column as it will stay, and its failed rows outside the `skipped` ones, by why."""
    if isinstance(step.how, Call):
        values, found = step.how.compute(frame, skipped)
        return frame.with_columns(values.alias(step.name)), found
    failed = frame[f"{_ERROR}{step.name}"] if step.how.error is not None else None
    masks = [mask for mask in (failed, skipped) if mask is not None and mask.any()]
    if not masks:
        return frame, {}
    kept = pl.when(pl.lit(reduce(or_, masks)).not_()).then(pl.col(step.name)).alias(step.name)
    new = failed if failed is None or skipped is None else failed & ~skipped
    detail = f"{step.name!r} could not be computed: {', or '.join(step.how.reasons)}"
    return frame.with_columns(kept), {detail: new.arg_true()} if new is not None and new.any() else {}


def _marked(height: int, failed: Iterable[pl.Series], skipped: pl.Series | None) -> pl.Series:
    """True for every row that has no usable value, of this feature or of one before."""
    mask = np.zeros(height, dtype=bool) if skipped is None else skipped.to_numpy().copy()
    for rows in failed:
        mask[rows.to_numpy()] = True
    return pl.Series(mask, dtype=pl.Boolean)


# From a schema to the steps in their order.


def compile_group(
    schema: GroupSchema, *, modules: Sequence[str] = (), local: Mapping[str, Function] | None = None
) -> Transformer:
    """The transformer of a group's derived features.

    modules: the modules that Python functions may come from, each with everything below it.
    local:   for features whose transformation is `local`, the callable that this process holds.
    Raises InvalidDefinition with every problem of every feature (its pointer is the feature's name), and Conflict
    for a local transformation whose callable is not here.
    """
    steps: dict[str, _Step] = {}
    problems: list[Problem] = []
    conflicts: list[Conflict] = []
    for feature in schema.features:
        try:
            if feature.transformation is not None:
                steps[feature.name] = _step(schema, feature, feature.transformation, modules, local or {})
        except InvalidDefinition as refused:
            problems.append(Problem(feature.name, refused.detail))
        except Conflict as conflict:
            conflicts.append(conflict)
    levels = _levels(steps, problems)
    if problems:
        raise InvalidDefinition(f"Transformations of group {schema.group!r} cannot be used.", problems)
    if conflicts:
        raise conflicts[0]
    return Transformer(schema, {name: step.reads for name, step in steps.items()}, levels)


def _levels(steps: Mapping[str, _Step], problems: list[Problem]) -> tuple[tuple[_Step, ...], ...]:
    """Steps in rounds, each reading only what earlier rounds made; cycles become problems."""
    waiting = dict(steps)
    levels: list[tuple[_Step, ...]] = []
    while waiting:
        level = tuple(step for step in waiting.values() if not step.reads & waiting.keys())
        if not level:
            cycle = _cycle(waiting)
            problems.append(Problem(cycle[0], f"it depends on itself: {' -> '.join(cycle)}"))
            level = tuple(waiting[name] for name in cycle[:-1])  # so that other cycles are found as well
        levels.append(level)
        for step in level:
            del waiting[step.name]
    return tuple(levels)


def _cycle(waiting: Mapping[str, _Step]) -> list[str]:
    """A path from a feature back to itself, along what each reads; every step waits for another one."""
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        path.append(min(waiting[path[-1]].reads & waiting.keys()))
    return path[path.index(path[-1]) :]


def _step(
    schema: GroupSchema,
    feature: FeatureColumn,
    transformation: Transformation,
    modules: Sequence[str],
    local: Mapping[str, Function],
) -> _Step:
    columns = {one.name: one.dtype for one in (*schema.join_keys, *schema.given)}
    columns |= {one.name: one.dtype for one in schema.features}
    if sum(map(bool, (transformation.expression, transformation.function, transformation.local))) != 1:
        raise InvalidDefinition("a transformation is exactly one of: an expression, a function, a local object")
    if transformation.expression:
        compiled = compile_expression(transformation.expression, columns, dtype=feature.dtype)
        return _Step(feature.name, compiled.references, compiled)
    _check_arguments(transformation, columns)
    if transformation.local:
        return _local_step(schema, feature, transformation, local)
    path, reads = transformation.function, transformation.arguments
    call = Call(imported(path, modules), path, reads, feature.dtype, transformation.rowwise)
    return _Step(feature.name, frozenset(reads), call)


def _check_arguments(transformation: Transformation, columns: Mapping[str, Dtype]) -> None:
    for name in transformation.arguments:
        if name not in columns:
            near = near_names(name, columns)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InvalidDefinition(f"unknown column {name!r} in the arguments.{hint}")
    if transformation.function and not transformation.arguments:
        raise InvalidDefinition(f"function {transformation.function} has no arguments; name the columns that it reads")


def _local_step(
    schema: GroupSchema, feature: FeatureColumn, transformation: Transformation, local: Mapping[str, Function]
) -> _Step:
    """A Python object of this process: it says nothing of what it reads, so it is handed every given column."""
    function = local.get(feature.name)
    if function is None:
        raise Conflict(
            f"Feature {feature.name!r} of group {schema.group!r} is computed by a Python object "
            f"({transformation.local}) that only the process which registered it holds. Write it as an expression "
            "(transformation: {expression: ...}), or put the function into an importable module that is allow-listed "
            "and name it (transformation: {function: package.module.name, arguments: [...]})."
        )
    given = tuple(one.name for one in (*schema.join_keys, *schema.given))
    handed = tuple(dict.fromkeys((*given, *transformation.arguments)))
    reads = frozenset(transformation.arguments or given)
    return _Step(feature.name, reads, Call(function, transformation.local, handed, feature.dtype, rowwise=True))
