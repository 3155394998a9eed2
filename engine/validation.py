"""The rules a feature's values must satisfy, and what happens to the rows that break them.

`problems_of` checks rules when they are saved, `validate` applies them to the rows of a frame. A null passes every
rule but `not_null`. Violations name a rule as its field is named, `length` standing for both lengths. `finite` is a
rule of every feature, since NaN and infinity are never stored; only functions bring them, conforming refuses the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from engine.violations import Violation

if TYPE_CHECKING:
    from engine.schema import Dtype, FeatureColumn

OnViolation = Literal["quarantine", "set_null", "warn"]
Bound = int | float

_INT64 = range(-(2**63), 2**63)
_ORDERED = ("int64", "float64")
_LISTS = ("embedding", "list")
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "int64": (int,),
    "float64": (int, float),
    "bool": (bool,),
    "string": (str,),
}
_SHOWN_VALUES = 10


@dataclass(frozen=True, slots=True)
class Validation:
    """Rules of one feature; the default has none. Bounds are inclusive; lengths count characters or items.

    `regex` must match the whole text (Rust syntax, linear time). `unique` holds within one run: of equal values the
    first row keeps it, whether or not that row breaks another rule.
    """

    not_null: bool = False
    min_value: Bound | None = None
    max_value: Bound | None = None
    allowed_values: tuple[bool | int | float | str, ...] | None = None
    unique: bool = False
    regex: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    on_violation: OnViolation = "quarantine"


@dataclass(frozen=True, slots=True)
class Validated:
    """The whole frame with some values nulled, and the violations by what becomes of their rows.

    `rejected` rows are still in `frame`: the caller takes them out. `nulled` values are null in it, `warned` ones kept.
    """

    frame: pl.DataFrame
    rejected: list[Violation]
    warned: list[Violation]
    nulled: list[Violation]


# -- When rules are saved.


def problems_of(validation: Validation, dtype: Dtype) -> list[str]:
    """What is wrong with the rules of a feature of `dtype`, a sentence each; empty if they can be applied.

    >>> from engine.schema import Dtype
    >>> problems_of(Validation(min_value=3, max_value=2), Dtype.parse("int64"))
    ['min_value 3 is above max_value 2: no value could pass']
    """
    return [
        *_bound_problems(validation, dtype),
        *_allowed_values_problems(validation, dtype),
        *_regex_problems(validation, dtype),
        *_length_problems(validation, dtype),
        *(["unique is not possible for lists and embeddings"] if validation.unique and dtype.kind in _LISTS else []),
    ]


def _bound_problems(validation: Validation, dtype: Dtype) -> Iterator[str]:
    bounds = {"min_value": validation.min_value, "max_value": validation.max_value}
    given = {rule: bound for rule, bound in bounds.items() if bound is not None}
    wrong = [problem for rule, bound in given.items() if (problem := _bound_problem(rule, bound, dtype))]
    yield from wrong
    if len(given) == 2 and not wrong and given["min_value"] > given["max_value"]:
        yield f"min_value {given['min_value']} is above max_value {given['max_value']}: no value could pass"


def _bound_problem(rule: str, bound: Bound, dtype: Dtype) -> str | None:
    if dtype.kind not in _ORDERED:
        return f"{rule} is for int64 and float64, not for {dtype}"
    if type(bound) not in (int, float):
        return f"{rule} must be a number"
    if not _is_float64(bound):
        return f"{rule} must be a finite number that float64 can reach"
    if dtype.kind == "int64" and (bound != math.floor(bound) or int(bound) not in _INT64):
        return f"{rule} {bound} must be a whole number of 64 bits, as the feature is int64"
    return None


def _is_float64(number: Bound) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _allowed_values_problems(validation: Validation, dtype: Dtype) -> Iterator[str]:
    allowed = validation.allowed_values
    if allowed is None:
        return
    if dtype.kind not in _PYTHON_TYPES:
        yield f"allowed_values is for {', '.join(_PYTHON_TYPES)}, not for {dtype}"
    elif not allowed:
        yield "allowed_values is empty: no value could pass"
    else:
        wrong = [repr(value) for value in allowed if not _is_of(value, dtype.kind)]
        if wrong:
            yield f"allowed_values has {', '.join(wrong[:_SHOWN_VALUES])}, which cannot be a value of {dtype}"


def _is_of(value: object, kind: str) -> bool:
    if type(value) not in _PYTHON_TYPES[kind]:
        return False
    if isinstance(value, str):
        return _is_unicode(value)
    if kind == "int64":
        return value in _INT64
    return kind != "float64" or (_is_float64(value) and float(value) == value)  # type: ignore[arg-type]


def _is_unicode(text: str) -> bool:
    """Whether every character can be encoded: a lone surrogate, which YAML and JSON can escape, cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _regex_problems(validation: Validation, dtype: Dtype) -> Iterator[str]:
    if validation.regex is None:
        return
    if dtype.kind != "string":
        yield f"regex is for string, not for {dtype}"
        return
    if not _is_unicode(validation.regex):
        yield f"regex {validation.regex!r} does not compile: it holds a lone surrogate"
        return
    try:
        # Alone first: `a)|(b` compiles once it is wrapped, and would then match less than the whole text.
        for pattern in (validation.regex, _whole(validation.regex)):
            pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.ComputeError as error:
        yield f"regex {validation.regex!r} does not compile: {_reason(str(error))}"


def _whole(regex: str) -> str:
    return rf"\A(?:{regex})\z"


def _reason(error: str) -> str:
    """The one line of a Rust regex error that says what is wrong, without the picture around it."""
    match = re.search(r"^error: (.+)$", error, re.MULTILINE)
    return match[1] if match else error.splitlines()[0].removeprefix("regex error: ")


def _length_problems(validation: Validation, dtype: Dtype) -> Iterator[str]:
    lengths = {"min_length": validation.min_length, "max_length": validation.max_length}
    given = {rule: length for rule, length in lengths.items() if length is not None}
    if given and dtype.kind not in ("string", *_LISTS):
        yield f"{' with '.join(given)} is for string, embedding and list, not for {dtype}"
        return
    wrong = [rule for rule, length in given.items() if type(length) is not int or length < 0]
    yield from (f"{rule} must be a whole number from 0" for rule in wrong)
    if len(given) == 2 and not wrong and given["min_length"] > given["max_length"]:
        yield f"min_length {given['min_length']} is above max_length {given['max_length']}: no value could pass"


# -- When rows are checked.


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule of one feature: what is true of the values that break it; a null there does not."""

    name: str
    detail: str
    broken: pl.Expr


def validate(
    frame: pl.DataFrame, features: Sequence[FeatureColumn], *, seen: MutableMapping[str, set[object]]
) -> Validated:
    """Apply the rules of `features` to their columns, which have the polars types of their dtypes.

    A row has at most one violation per feature and rule, and several when it breaks several rules. All rules look at
    the value as it came: one that `set_null` takes away does not break `not_null` as well.

    `seen` holds, per feature with `unique`, every value of the chunks before; start a run (or a repeated attempt of
    one) with an empty dict and pass it on. It grows by about 100 bytes per distinct value: `unique` is the one rule
    whose memory is not bounded by the chunk.
    """
    rules = {feature.name: _rules(feature) for feature in features}
    broken = frame.select(rule.broken.alias(f"{name}:{rule.name}") for name in rules for rule in rules[name])
    validated = Validated(frame, [], [], [])
    taken: dict[str, pl.Series] = {}
    for feature in features:
        masks = [(rule, broken[f"{feature.name}:{rule.name}"]) for rule in rules[feature.name]]
        if feature.validation.unique:
            masks.append((_UNIQUE, _repeated(frame[feature.name], seen.setdefault(feature.name, set()))))
        for rule, mask in masks:
            if mask.any():
                _report(validated, taken, feature, rule, mask)
    return _without(validated, taken)


def _report(
    validated: Validated, taken: dict[str, pl.Series], feature: FeatureColumn, rule: _Rule, mask: pl.Series
) -> None:
    """File a violation under what becomes of its rows; `taken` gathers the values that become null."""
    violation = Violation(feature.name, rule.name, rule.detail, mask.arg_true())
    match _outcome(rule, feature.validation):
        case "quarantine":
            validated.rejected.append(violation)
        case "warn":
            validated.warned.append(violation)
        case "set_null":
            validated.nulled.append(violation)
            taken[feature.name] = taken[feature.name] | mask if feature.name in taken else mask


def _outcome(rule: _Rule, validation: Validation) -> OnViolation:
    """NaN and infinity are never stored, so a warning is not enough for them."""
    if rule.name == "finite" and validation.on_violation == "warn":
        return "quarantine"
    return validation.on_violation


def _without(validated: Validated, taken: dict[str, pl.Series]) -> Validated:
    if not taken:
        return validated
    kept = [pl.when(mask).then(None).otherwise(pl.col(name)).alias(name) for name, mask in taken.items()]
    frame = validated.frame.with_columns(kept)
    return Validated(frame, validated.rejected, validated.warned, validated.nulled)


_UNIQUE = _Rule("unique", "stands in an earlier row of this run", pl.lit(False))


def _repeated(values: pl.Series, seen: set[object]) -> pl.Series:
    """Which values are in `seen` or earlier in the series; adds them all to `seen`."""
    repeated = []
    for value in values.to_physical().to_list():
        repeated.append(value is not None and value in seen)
        seen.add(value)
    return pl.Series(repeated, dtype=pl.Boolean)


def _rules(feature: FeatureColumn) -> list[_Rule]:
    """The rules of a feature but `unique`, in the order in which they are reported."""
    validation, column = feature.validation, pl.col(feature.name)
    rules = list(_finite(feature, column))
    if validation.not_null:
        rules.append(_Rule("not_null", "is null", column.is_null()))
    if feature.dtype.kind == "float64":
        # Polars orders NaN above all numbers and equal to itself: past `finite` it is as good as absent.
        column = pl.when(column.is_finite()).then(column)
    rules += [*_bounds(validation, feature.dtype, column), *_allowed(validation, feature.dtype, column)]
    if validation.regex is not None:
        detail = f"does not match {validation.regex!r} from end to end"
        rules.append(_Rule("regex", detail, ~column.str.contains(_whole(validation.regex))))
    return rules + list(_lengths(validation, feature.dtype, column))


def _finite(feature: FeatureColumn, column: pl.Expr) -> Iterator[_Rule]:
    """Only computed lists are looked into: conforming has looked into the given ones."""
    if feature.dtype.kind == "float64":
        yield _Rule("finite", "is NaN or infinite", ~column.is_finite())
    elif feature.transformation and (feature.dtype.kind == "embedding" or feature.dtype.item == "float64"):
        items = column.list.eval(pl.element().is_finite().fill_null(False))
        yield _Rule("finite", "holds NaN, infinity or null", ~items.list.all())


def _bounds(validation: Validation, dtype: Dtype, column: pl.Expr) -> Iterator[_Rule]:
    if validation.min_value is not None:
        lowest = _lowest(validation.min_value, dtype)
        yield _Rule("min_value", f"is below the minimum {validation.min_value}", column < lowest)
    if validation.max_value is not None:
        highest = _highest(validation.max_value, dtype)
        yield _Rule("max_value", f"is above the maximum {validation.max_value}", column > highest)


def _lowest(bound: Bound, dtype: Dtype) -> pl.Expr:
    """The least value of the column's own type that is not below `bound`, so that nothing is rounded to compare."""
    if dtype.kind == "int64":
        return pl.lit(math.ceil(bound), dtype=pl.Int64)
    nearest = float(bound)
    return pl.lit(math.nextafter(nearest, math.inf) if nearest < bound else nearest, dtype=pl.Float64)


def _highest(bound: Bound, dtype: Dtype) -> pl.Expr:
    if dtype.kind == "int64":
        return pl.lit(math.floor(bound), dtype=pl.Int64)
    nearest = float(bound)
    return pl.lit(math.nextafter(nearest, -math.inf) if nearest > bound else nearest, dtype=pl.Float64)


def _allowed(validation: Validation, dtype: Dtype, column: pl.Expr) -> Iterator[_Rule]:
    if validation.allowed_values is None:
        return
    allowed = pl.Series(validation.allowed_values, dtype=dtype.polars, strict=False)
    shown = ", ".join(map(repr, validation.allowed_values[:_SHOWN_VALUES]))
    more = ", ..." if len(allowed) > _SHOWN_VALUES else ""
    yield _Rule("allowed_values", f"is not one of {shown}{more}", ~column.is_in(allowed.implode()))


def _lengths(validation: Validation, dtype: Dtype, column: pl.Expr) -> Iterator[_Rule]:
    least, most = validation.min_length or 0, validation.max_length
    if least == 0 and most is None:
        return
    unit, length = ("characters", column.str.len_chars()) if dtype.kind == "string" else ("items", column.list.len())
    if most is None:
        yield _Rule("length", f"has fewer than {least} {unit}", length < least)
    else:
        yield _Rule("length", f"has not {least} to {most} {unit}", ~length.is_between(least, most))
