"""What can go wrong, as one tree; every error says what was wrong, where, and what would be right.

FeaturehubError
├── InvalidInput            400  what the caller sent cannot be used as it is
│   ├── InvalidDefinition   422  a definitions file, a catalog edit or a schema with problems
│   │   └── InvalidExpression    a transformation that is not a checked scalar expression
│   ├── InvalidRows         422  rows that break the types or the rules of their group
│   ├── InvalidSource       422  a source path, file or column that cannot be read as declared
│   ├── InvalidSpine        422  a spine that lacks a key or a timestamp, or has a wrong one
│   ├── UnknownName         400  a name that the catalog does not have (near names are offered)
│   ├── AmbiguousName       400  a bare feature name that stands in several groups
│   ├── TooLarge            413  more rows or values than one request may ask for or send
│   ├── TooSlow             408  a body that did not come in within the time that it has
│   ├── IfMatchMissing      428  a change that does not say which version of the thing it is a change of
│   ├── UnsupportedMediaType 415 a body of a type or an encoding that the route does not read
│   └── IdempotencyKeyReused 422 another request under a key that has been used
├── NotFound                404  the thing named by the address does not exist
│   └── EntityNotFound      404  no row of that entity in any group asked
├── NotAuthenticated        401  no key, or a key that is not valid
├── NotAllowed              403  a valid key without the scope
├── TooManyRequests         429  a key that asks faster than its limit (retryable, after a stated time)
├── Conflict                409  the catalog's state does not allow it
│   ├── FeatureNotActive    409  a draft feature was asked for
│   ├── SchemaMoved         409  the group kept changing while rows were computed for it (retryable)
│   ├── StaleEdit           412  a change of a version that is not the present one any more
│   └── StillRead           409  something that is still read cannot be archived
├── FeatureArchived         410  an archived feature was asked for
├── RunFailed               500  a run that ended without landing; nothing of it is visible
│   └── LeaseLost           409  an attempt whose run was cancelled, or taken up by another worker
├── CorruptData             500  stored bytes or files that fail their checksum or cannot be decoded
├── StorageFailed           503  the folder of the offline store cannot be written now (retryable)
│   └── StorageFull         507  it has no room left (retryable)
└── Unavailable             503  a store does not answer now (retryable)
    └── OnlineStoreCold     503  Redis answers but does not hold the store: it is being rebuilt
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (a JSON pointer or a path in a file), what, and near names."""

    pointer: str
    detail: str
    did_you_mean: tuple[str, ...] = ()

    def __str__(self) -> str:
        hint = f" Did you mean {' or '.join(self.did_you_mean)}?" if self.did_you_mean else ""
        return f"{self.pointer}: {self.detail}{hint}" if self.pointer else f"{self.detail}{hint}"


class FeaturehubError(Exception):
    """Base of all; `code` is stable for programs, `status` is its HTTP status, `retryable` is read by tasks."""

    code = "error"
    status = 500
    retryable = False
    #: Of a refusal: why, and whose request it was. For who keeps the hub, never answered.
    reason = ""
    about = ""

    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        self.detail = detail
        self.problems = tuple(problems)
        super().__init__(detail)

    def __str__(self) -> str:
        return "\n".join([self.detail, *(f"  {problem}" for problem in self.problems)])


class InvalidInput(FeaturehubError):
    code = "invalid_input"
    status = 400


class InvalidDefinition(InvalidInput):
    code = "invalid_definition"
    status = 422


class InvalidExpression(InvalidDefinition):
    """A transformation that was refused; `position` is the offset of the place in its text, if known."""

    code = "invalid_expression"

    def __init__(self, detail: str, *, position: int | None = None) -> None:
        self.position = position
        super().__init__(detail)


class InvalidRows(InvalidInput):
    code = "invalid_rows"
    status = 422


class InvalidSource(InvalidInput):
    code = "invalid_source"
    status = 422


class InvalidSpine(InvalidInput):
    code = "invalid_spine"
    status = 422


class UnknownName(InvalidInput):
    code = "unknown_name"


class AmbiguousName(InvalidInput):
    code = "ambiguous_name"


class TooLarge(InvalidInput):
    code = "too_large"
    status = 413


class TooSlow(InvalidInput):
    code = "too_slow"
    status = 408


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"
    status = 415


class IfMatchMissing(InvalidInput):
    code = "if_match_missing"
    status = 428


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency_key_reused"
    status = 422


class NotFound(FeaturehubError):
    code = "not_found"
    status = 404


class EntityNotFound(NotFound):
    code = "entity_not_found"


class NotAuthenticated(FeaturehubError):
    code = "not_authenticated"
    status = 401


class NotAllowed(FeaturehubError):
    code = "not_allowed"
    status = 403


class TooManyRequests(FeaturehubError):
    """`retry_after_seconds`: when the next request is taken, a whole number above 0."""

    code = "too_many_requests"
    status = 429
    retryable = True

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(detail)


class Conflict(FeaturehubError):
    code = "conflict"
    status = 409


class FeatureNotActive(Conflict):
    code = "feature_not_active"


class SchemaMoved(Conflict):
    code = "schema_moved"
    retryable = True


class StaleEdit(Conflict):
    """`etag` and `present`: the version that it would have to be a change of, and what the thing is in it; if known."""

    code = "stale_edit"
    status = 412

    def __init__(self, detail: str, *, etag: str = "", present: dict[str, Any] | None = None) -> None:
        self.etag, self.present = etag, present
        super().__init__(detail)


class StillRead(Conflict):
    code = "still_read"


class FeatureArchived(FeaturehubError):
    code = "feature_archived"
    status = 410


class RunFailed(FeaturehubError):
    code = "run_failed"


class LeaseLost(RunFailed):
    code = "lease_lost"
    status = 409


class CorruptData(FeaturehubError):
    code = "corrupt_data"


class StorageFailed(FeaturehubError):
    code = "storage_failed"
    status = 503
    retryable = True


class StorageFull(StorageFailed):
    code = "storage_full"
    status = 507


class Unavailable(FeaturehubError):
    code = "unavailable"
    status = 503
    retryable = True


class OnlineStoreCold(Unavailable):
    code = "online_store_cold"


def error_of(code: str, detail: str) -> FeaturehubError:
    """The error of that code, as another process told it; of an unknown code RunFailed."""
    kinds = [FeaturehubError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((kind for kind in kinds if kind.code == code), RunFailed)(detail)


def near_names(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three known names that look like `name`, nearest first.

    >>> near_names("total_purchase", ["total_purchases", "segment"])
    ('total_purchases',)
    """
    return tuple(difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6))


def unknown_name(kind: str, name: str, known: Iterable[str], *, pointer: str = "") -> UnknownName:
    """The error for a name that the catalog does not have, with near names."""
    detail = f"There is no {kind} named {name!r}."
    return UnknownName(detail, [Problem(pointer, detail, near_names(name, known))])
