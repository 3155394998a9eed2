"""What may stand in a definitions file, as frozen values; the catalog itself is read into the same values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from celery.schedules import ParseException, crontab
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    Strict,
    WithJsonSchema,
    model_validator,
)

from catalog.definitions.durations import DURATION_RULE, read_duration, written_duration
from catalog.models import FeatureType, Status
from catalog.models.feature import default_type
from catalog.models.naming import NAME_PATTERN, NAME_RULE
from engine import schema
from engine.errors import InvalidDefinition, near_names
from engine.validation import OnViolation
from engine.validation import Validation as Rules

KEY_DTYPES = ["int64", "string"]
MAX_INTEGER = 2**31 - 1  # of the version columns
MAX_SCHEDULE = timedelta(days=3650)
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}:[a-z][a-z0-9_]{0,62}")
#: Keys of a feature that belong to its status: absent together with it, they stay as the catalog has them.
STATUS_KEYS = ("status", "deprecation_reason", "replaced_by", "sunset")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mapping stands: file, line, path in it, and the line of each of its keys (`key` or `key[0]`)."""

    file: str = ""
    line: int = 0
    path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.path}".rstrip()

    def of(self, key: str) -> str:
        """`file:line path.key`, at the mapping's own line when it does not have the key."""
        path = f"{self.path}.{key}" if self.path else key
        return f"{self.file}:{self.lines.get(key, self.line)} {path}"


class PlacedMapping(dict[str, Any]):
    """A mapping of a file that knows its place."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN.strip("^$"), text):
        raise ValueError(f"{text!r} is not a name; a name is {NAME_RULE}")
    return text


def _free(name: str) -> str:
    if name in schema.RESERVED_NAMES:
        raise ValueError(f"{name} is a column that every stored row has already; take another name")
    return name


def _feature_name(text: str) -> str:
    if not FEATURE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a feature; one is written group:feature")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character U+0000 cannot be stored")
    return text


def _email(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError as error:
        raise ValueError(f"{text!r} is not an e-mail address") from error
    return text


def _dtype(text: str) -> str:
    try:
        schema.Dtype.parse(text)
    except InvalidDefinition as error:
        raise ValueError(error.detail.rstrip(".")) from error
    return text


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"text, a number or true/false is expected, not {value!r}")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a finite number is expected, not {value!r} (a float has a point: 1.0e+6)")
    return value


def _utc(written: Any) -> datetime:
    wanted = "a time with an offset is expected, such as 2030-01-31T00:00:00Z"
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else written
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ValueError(wanted)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(wanted) from error


def _cron(text: str) -> str:
    parts = text.split()
    try:
        crontab(*parts) if len(parts) == 5 else crontab(minute="refused")
    except (ParseException, ValueError):
        raise ValueError(f"{text!r} is not a cron line; it has minute, hour, day, month, weekday (UTC)") from None
    return " ".join(parts)


def _one_of(values: list[str]) -> AfterValidator:
    def check(text: str) -> str:
        if text not in values:
            near = "".join(f" Did you mean {name}?" for name in near_names(text, values)[:1])
            raise ValueError(f"{text!r} is not one of {', '.join(values)}.{near}")
        return text

    return AfterValidator(check)


def _sorted(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Column = Annotated[Name, AfterValidator(_free)]
FeatureName = Annotated[
    str, AfterValidator(_feature_name), WithJsonSchema({"type": "string", "pattern": f"^{FEATURE_NAME.pattern}$"})
]
Text = Annotated[str, AfterValidator(_without_nul)]
Email = Annotated[str, Field(max_length=254), AfterValidator(_email)]
DtypeText = Annotated[str, AfterValidator(_dtype)]
Number = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]
Scalar = Annotated[
    Any, AfterValidator(_scalar), WithJsonSchema({"oneOf": [{"type": t} for t in ("boolean", "number", "string")]})
]
StatusText = Annotated[str, _one_of(Status.values), WithJsonSchema({"type": "string", "enum": Status.values})]
TypeText = Annotated[str, _one_of(FeatureType.values), WithJsonSchema({"type": "string", "enum": FeatureType.values})]
KeyDtypeText = Annotated[str, _one_of(KEY_DTYPES), WithJsonSchema({"type": "string", "enum": KEY_DTYPES})]
Version = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Moment = Annotated[
    datetime,
    BeforeValidator(_utc),
    PlainSerializer(lambda at: at.isoformat().replace("+00:00", "Z")),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Duration = Annotated[
    timedelta | None,
    BeforeValidator(read_duration),
    PlainSerializer(written_duration),
    WithJsonSchema({"type": "string", "nullable": True, "description": f"{DURATION_RULE}."}),
]
_LIST = Strict(False)  # a YAML list becomes a tuple; what it holds stays strict


class Definition(BaseModel):
    """Base of all: unknown keys refused, nothing converted, and the place it was read from."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    default_status: ClassVar[str] = ""
    _place: Place = PrivateAttr(default=Place())

    @model_validator(mode="wrap")
    @classmethod
    def _remember_place(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        definition = handler(data)
        if isinstance(data, PlacedMapping):
            definition._place = data.place
        return definition

    @property
    def place(self) -> Place:
        return self._place

    def written(self) -> dict[str, Any]:
        """The definition as a file would have it, without what is default."""
        found = self.model_dump(exclude_defaults=True)
        if found.get("status") == self.default_status:
            del found["status"]
        return {key: value for key, value in found.items() if value != {}}


class Owner(Definition):
    name: Name
    email: Email | None = None
    members: Annotated[tuple[str, ...], _LIST, AfterValidator(_sorted)] = ()


class Documented(Definition):
    """What every named thing may say about itself."""

    name: Name
    description: Text = ""
    owner: Name | None = None
    tags: Annotated[tuple[Name, ...], _LIST, AfterValidator(_sorted)] = ()


class JoinKey(Definition):
    name: Column
    dtype: KeyDtypeText


class Entity(Documented):
    join_keys: Annotated[tuple[JoinKey, ...], _LIST, Field(min_length=1)]


class Input(Definition):
    name: Column
    dtype: DtypeText


class RequestInput(Input):
    """A value that readers send with a request."""


class Transformation(Definition):
    """Exactly one of expression, function and local; arguments and rowwise belong to a function."""

    expression: Annotated[Text, Field(min_length=1)] | None = None
    function: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    arguments: Annotated[tuple[Name, ...], _LIST] = ()
    rowwise: bool = False
    local: Annotated[Text, Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(way is not None for way in (self.expression, self.function, self.local)) != 1:
            raise ValueError("exactly one of expression, function and local is expected")
        if self.function is None and (self.arguments or self.rowwise):
            raise ValueError("arguments and rowwise belong to a function")
        return self

    def value(self) -> schema.Transformation:
        return schema.Transformation(
            self.expression or "", self.function or "", self.arguments, self.rowwise, self.local or ""
        )


class Validation(Definition):
    """Rules as in engine/validation.py; whether they suit the dtype is checked with the group."""

    not_null: bool = False
    min_value: Number | None = None
    max_value: Number | None = None
    allowed_values: Annotated[tuple[Scalar, ...], _LIST] | None = None
    unique: bool = False
    regex: Text | None = None
    min_length: int | None = None
    max_length: int | None = None
    on_violation: OnViolation = "quarantine"


class Feature(Documented):
    name: Column
    dtype: DtypeText
    type: TypeText | None = None
    status: StatusText | None = None
    deprecation_reason: Text | None = None
    replaced_by: FeatureName | None = None
    sunset: Moment | None = None
    transformation: Transformation | None = None
    validation: Validation = Validation()

    @property
    def settled_type(self) -> str:
        """The type as written, or the one that the dtype suggests."""
        return self.type or str(default_type(schema.Dtype.parse(self.dtype)))

    def written(self) -> dict[str, Any]:
        found = super().written()
        if self.type == default_type(schema.Dtype.parse(self.dtype)):
            del found["type"]
        return found

    def column(self) -> schema.FeatureColumn:
        """The feature as ingestion sees it."""
        rules = {name: getattr(self.validation, name) for name in Validation.model_fields}
        how = self.transformation.value() if self.transformation else None
        return schema.FeatureColumn(self.name, schema.Dtype.parse(self.dtype), how, Rules(**rules))


class Source(Definition):
    kind: Literal["file"]
    path: Annotated[Text, Field(min_length=1, max_length=1024)]
    name: Name | None = None


class Schedule(Definition):
    """Every so often, or a cron line in UTC."""

    every: Duration = None
    cron: Annotated[str, AfterValidator(_cron)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("exactly one of every and cron is expected")
        if self.every and (self.every.microseconds or self.every > MAX_SCHEDULE):
            raise ValueError(f"every is in whole seconds, and at most {MAX_SCHEDULE.days}d")
        return self


class FeatureGroup(Documented):
    default_status: ClassVar[str] = Status.DRAFT.value

    entity: Name
    version: Version = 1
    status: StatusText | None = None
    ttl: Duration = None
    freshness: Duration = None
    event_timestamp: Name = schema.EVENT_TIMESTAMP
    created_timestamp: Name | None = None
    needs_review: bool = False
    inputs: Annotated[tuple[Input, ...], _LIST] = ()
    request_inputs: Annotated[tuple[RequestInput, ...], _LIST] = ()
    features: Annotated[tuple[Feature, ...], _LIST] = ()
    source: Source | None = None
    schedule: Schedule | None = None

    @property
    def source_name(self) -> str:
        return (self.source.name if self.source else None) or self.name

    def written(self) -> dict[str, Any]:
        found = super().written()
        if self.source and self.source.name == self.name:
            del found["source"]["name"]
        return {**found, "features": [feature.written() for feature in self.features]}


class FeatureService(Documented):
    default_status: ClassVar[str] = Status.ACTIVE.value

    version: Version = 1
    status: StatusText | None = None
    features: Annotated[tuple[FeatureName, ...], _LIST, Field(min_length=1)]

    def written(self) -> dict[str, Any]:
        found = super().written()
        return {"name": found.pop("name"), "version": self.version, **found}


Found = TypeVar("Found", bound=Definition)


class Document(Definition):
    """Everything that some files, or the catalog, define."""

    owners: Annotated[tuple[Owner, ...], _LIST] = ()
    entities: Annotated[tuple[Entity, ...], _LIST] = ()
    feature_groups: Annotated[tuple[FeatureGroup, ...], _LIST] = ()
    feature_services: Annotated[tuple[FeatureService, ...], _LIST] = ()

    def each(self) -> Iterator[tuple[str, str, Definition]]:
        """(kind, name, definition): a feature as `group:name` after its group, a service as `name@version`."""
        yield from (("owner", owner.name, owner) for owner in self.owners)
        yield from (("entity", entity.name, entity) for entity in self.entities)
        for group in self.feature_groups:
            yield "feature group", group.name, group
            yield from (("feature", f"{group.name}:{feature.name}", feature) for feature in group.features)
        yield from (("feature service", f"{made.name}@{made.version}", made) for made in self.feature_services)

    def find(self, kind: type[Found]) -> dict[str, Found]:
        """The definitions of one kind by name."""
        return {name: found for _, name, found in self.each() if isinstance(found, kind)}
