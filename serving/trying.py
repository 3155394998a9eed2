"""A look-up by a person: the texts of a form become the id, names and request inputs that `reading_entity` takes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalog import rate_limits, snapshot, usage
from catalog.access import READ, READ_PII, AnyCaller, allowed, principal_of
from catalog.actions import Limit
from catalog.bodies import parse_json
from catalog.models import Status
from catalog.snapshot import Catalog, FeatureSnapshot
from engine.entity_key import to_id
from engine.errors import InvalidInput, Problem, TooManyRequests
from engine.schema import Field
from serving.lookup import reading_entity
from serving.names import find_features, find_service
from serving.steps import carried_out
from serving.vectors import Vectors

#: How often one caller may look up through the pages.
LIMIT = Limit(10, 10)
#: What a form asks for: all that is stored, or one service or one feature by its name.
ALL, SERVICE, FEATURE = "all", "service:", "feature:"
_WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")
_SERVABLE = (Status.ACTIVE, Status.DEPRECATED)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was asked, in the words of `GET /features/<entity>/<id>`, and what was found.

    milliseconds: how long the server took for it.
    left_out:     features that all of the entity's would have and that the caller may not read.
    """

    entity: str
    id: str
    features: str | None
    service: str | None
    request: Mapping[str, object] | None
    found: Vectors
    labels: list[str]
    milliseconds: float
    left_out: tuple[str, ...] = ()


def look_up(entity: str, id: str, what: str, texts: Mapping[str, str], caller: AnyCaller) -> Looked:
    """Read one entity's values from the online store and count the use, as the API does.

    `what` is ALL, SERVICE or FEATURE with a name; `texts` has a text for each request input of the entity's groups, of
    which those are sent that are needed. Raises what `reading_entity` does, and TooManyRequests beyond LIMIT.
    """
    _require_pace(caller)
    catalog = snapshot.current()
    features, service, left_out = _asked(entity, what, caller, catalog)
    request = _request(_inputs_of(entity, features, service, catalog), texts)
    began = time.perf_counter()
    steps = reading_entity(entity, id, features=features, service=service, caller=caller, request=request)
    found, labels = carried_out(steps)
    took = 1000 * (time.perf_counter() - began)
    usage.count(found.plan.feature_names, caller)
    return Looked(entity, id, features, service, request, found, labels, took, left_out)


def _require_pace(caller: AnyCaller) -> None:
    if wait := rate_limits.buckets().take(f"page:{principal_of(caller)}", LIMIT):
        raise TooManyRequests(
            f"A page looks up at most {LIMIT.per_second:g} times a second; programs ask the API.",
            retry_after_seconds=math.ceil(wait),
        )


def _asked(
    entity: str, what: str, caller: AnyCaller, catalog: Catalog
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """`features` and `service` as `reading_entity` takes them, and what is left out."""
    if what.startswith(SERVICE):
        return None, what.removeprefix(SERVICE), ()
    if what.startswith(FEATURE):
        return what.removeprefix(FEATURE), None, ()
    if what not in ("", ALL):
        raise InvalidInput("Ask for all features, for one feature or for one service.")
    stored = [f for group in catalog.groups_of.get(entity, ()) for f in group.features.values() if not f.on_request]
    served = [feature for feature in stored if feature.status in _SERVABLE]
    readable = [feature for feature in served if _may_read(feature, caller)]
    if len(readable) in (0, len(served)):
        return None, None, ()  # as an address without names asks; refused, if there is nothing that may be read
    names = [feature.full_name for feature in readable]
    return ",".join(names), None, tuple(f.full_name for f in served if f not in readable)


def _may_read(feature: FeatureSnapshot, caller: AnyCaller) -> bool:
    group = [feature.group]
    return allowed(caller, READ, group) and (not feature.is_personal or allowed(caller, READ_PII, group))


def _inputs_of(entity: str, features: str | None, service: str | None, catalog: Catalog) -> Sequence[Field]:
    """The request inputs that what was asked for is computed from; unknown names are left to the look-up."""
    if features is not None:
        chosen = find_features(features.split(","), catalog.groups_of.get(entity, ()), where=entity)
    elif service is not None:
        chosen = [catalog.groups[group].features[name] for group, name in find_service(service, catalog).features]
    else:
        return ()
    return inputs_of(chosen, catalog)


def inputs_of(features: Sequence[FeatureSnapshot], catalog: Catalog) -> list[Field]:
    """The request inputs that these features are computed from, each once."""
    found: dict[str, Field] = {}
    for name in dict.fromkeys(feature.group for feature in features):
        computation = catalog.groups[name].computation(f.name for f in features if f.group == name)
        found |= {field.name: field for field in (computation.request_inputs if computation else ())}
    return list(found.values())


def _request(inputs: Sequence[Field], texts: Mapping[str, str]) -> dict[str, object] | None:
    """The values of a request, null where the text is empty; raises InvalidInput naming each text that is none."""
    if not inputs:
        return None
    values: dict[str, object] = {}
    problems = []
    for field in inputs:
        try:
            values[field.name] = _value(texts.get(field.name, ""), field)
        except InvalidInput as error:
            problems.append(Problem(field.name, error.detail))
    if problems:
        raise InvalidInput("A value of the request cannot be used.", problems)
    return values


def _value(text: str, field: Field) -> object:
    """What JSON would have for a text; that it fits the dtype exactly is looked at where all requests are."""
    kind = field.dtype.kind
    if not text:
        return None
    if kind in ("string", "timestamp"):
        return text
    if kind == "bool":
        if text not in ("true", "false"):
            raise InvalidInput("true or false is right.")
        return text == "true"
    if kind == "int64":
        if not _WHOLE_NUMBER.fullmatch(text):
            raise InvalidInput("a whole number is right.")
        return int(text)
    if kind == "float64":
        try:
            return float(text)
        except ValueError as error:
            raise InvalidInput("a number is right, with a point before its decimals.") from error
    return parse_json(text.encode(errors="surrogatepass"))


def id_of(keys: Sequence[Field], texts: Mapping[str, str]) -> str:
    """The id of these join key texts as an address has it; raises InvalidInput naming those that are missing."""
    if missing := [key.name for key in keys if not texts.get(key.name)]:
        raise InvalidInput(f"{', '.join(missing)}: an id is needed.", [Problem(name, "is empty") for name in missing])
    return to_id([texts[key.name] for key in keys])
