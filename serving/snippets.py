"""Code to paste that reads features: with their real names, the key taken from the environment, never a secret."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from engine.entity_key import KeyValue, to_id
from engine.instants import microseconds, rfc3339
from engine.schema import EVENT_TIMESTAMP, Dtype, Field

#: Characters of a line of Python.
_LINE = 80
_KEY = '-H "Authorization: Bearer $FEATUREHUB_API_KEY"'
_FEAST = {
    "int64": "Int64",
    "float64": "Float64",
    "bool": "Bool",
    "string": "String",
    "timestamp": "UnixTimestamp",
}
_EXAMPLES: dict[str, Any] = {
    "int64": 1,
    "float64": 1.5,
    "bool": True,
    "string": "text",
    "timestamp": "2026-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to read. `note` says what it needs."""

    name: str
    title: str
    text: str
    note: str


@dataclass(frozen=True, slots=True)
class Part:
    """A feature that is asked for: its group, its entity, its dtype, whether it is computed on request."""

    group: str
    name: str
    entity: str
    dtype: Dtype
    on_request: bool

    @property
    def full_name(self) -> str:
        return f"{self.group}:{self.name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What snippets read: features, or a service of these features, of the entities with these join keys.

    base:   the hub's address without a slash at its end.
    ids:    a value for each join key: of an entity that is there, or a placeholder.
    inputs: the request inputs that are needed.
    when:   a time at which the entities have values.
    """

    base: str
    parts: tuple[Part, ...]
    keys: Mapping[str, tuple[Field, ...]]
    ids: Mapping[str, KeyValue]
    when: datetime
    service: str = ""
    inputs: tuple[Field, ...] = ()

    @property
    def names(self) -> list[str]:
        return [part.full_name for part in self.parts]

    @property
    def asked(self) -> dict[str, Any]:
        """What a request's body asks for."""
        return {"feature_service": self.service} if self.service else {"features": self.names}

    @property
    def one_key_each(self) -> bool:
        return all(len(keys) == 1 for keys in self.keys.values())

    def request(self) -> dict[str, Any]:
        """A value for each request input."""
        return {field.name: example(field.dtype) for field in self.inputs}


def placeholder(key: Field) -> KeyValue:
    """Stands for an id where none may be shown or there is none."""
    return 1 if key.dtype.kind == "int64" else f"<{key.name}>"


def example(dtype: Dtype) -> Any:
    """A value of a dtype, as JSON has it."""
    if dtype.kind == "embedding":
        return [0.0] * dtype.dim
    return [_EXAMPLES[dtype.item]] if dtype.kind == "list" else _EXAMPLES[dtype.kind]


def all_of(wanted: Wanted) -> list[Snippet]:
    """Every way that reads these features, the shortest first."""
    return [
        curl(wanted),
        _python_over_http(wanted),
        *_in_process(wanted),
        _training(wanted),
        *_training_command(wanted),
        *_feast(wanted),
    ]


def curl(wanted: Wanted) -> Snippet:
    if wanted.inputs or len(wanted.keys) > 1:
        text = curl_of_body(wanted.base, _body(wanted))
    else:
        [(entity, keys)] = wanted.keys.items()
        query = {"feature_service": wanted.service} if wanted.service else {"features": ",".join(wanted.names)}
        text = curl_of_address(wanted.base, entity, to_id([wanted.ids[key.name] for key in keys]), query)
    return Snippet("curl", "curl", text, "For a shell that has a key with the scope read in FEATUREHUB_API_KEY.")


def curl_of_address(base: str, entity: str, id: str, query: Mapping[str, str]) -> str:
    """The command that asks `GET /features/<entity>/<id>`."""
    asked = f"?{urlencode(query, safe=',:@')}" if query else ""
    address = f"{base}/features/{entity}/{quote(id, safe='')}{asked}"
    return f"curl -s {_KEY} \\\n  {shlex.quote(address)}"


def curl_of_body(base: str, body: Mapping[str, Any]) -> str:
    """The command that sends a body to `POST /api/v1/vectors`."""
    sent = shlex.quote(json.dumps(body))
    lines = [
        f"curl -s {_KEY}",
        '-H "Content-Type: application/json"',
        f"{shlex.quote(base)}/api/v1/vectors",
        f"-d {sent}",
    ]
    return " \\\n  ".join(lines)


def _body(wanted: Wanted) -> dict[str, Any]:
    body = wanted.asked | {"entities": {key: [value] for key, value in wanted.ids.items()}}
    if wanted.inputs:
        body["request"] = {name: [value] for name, value in wanted.request().items()}
    return body


def _python(value: Any, indent: int = 0) -> str:
    """A value as Python writes it, over several lines where one would be too long; `indent` is that of its line.

    >>> print(_python({"a": ["é", None, True]}))
    {"a": ["é", None, True]}
    """
    line = _python_line(value)
    if len(line) + indent <= _LINE or not isinstance(value, list | dict) or not value:
        return line
    inner = " " * (indent + 4)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, dict):
        items = [f"{_python_line(key)}: {_python(item, indent + 4)}" for key, item in value.items()]
    else:
        items = [_python(item, indent + 4) for item in value]
    return f"{opening}\n" + "".join(f"{inner}{item},\n" for item in items) + f"{' ' * indent}{closing}"


def _python_line(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python_line(key)}: {_python_line(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python_line, value)) + "]"
    return repr(value)


def _python_over_http(wanted: Wanted) -> Snippet:
    text = f"""\
import os

import requests

answer = requests.post(
    {_python(f"{wanted.base}/api/v1/vectors")},
    headers={{"Authorization": f"Bearer {{os.environ['FEATUREHUB_API_KEY']}}"}},
    json={_python(_body(wanted), 4)},
    timeout=5,
)
answer.raise_for_status()
found = answer.json()
print(dict(zip(found["feature_names"], found["values"][0])))
"""
    return Snippet("http", "Python over HTTP", text, "Needs requests, and FEATUREHUB_API_KEY exported to this process.")


def _in_process(wanted: Wanted) -> list[Snippet]:
    """One call for each entity; an entity with several join keys cannot be named so."""
    if not wanted.one_key_each:
        return []
    calls = "\n".join(_online_call(wanted, entity, key) for entity, (key,) in wanted.keys.items())
    text = f"""\
from featurehub.feature_store import FeatureStore

store = FeatureStore()
found = {{}}
{calls}
print(found)
"""
    note = "Runs in the hub's project folder, as a process of the hub: without HTTP and without a key."
    return [Snippet("process", "Python in process", text, note)]


def _online_call(wanted: Wanted, entity: str, key: Field) -> str:
    parts = [part for part in wanted.parts if part.entity == entity]
    arguments = [_python(entity), _python(wanted.ids[key.name]), _python([part.full_name for part in parts], 4)]
    if any(part.on_request for part in parts):
        arguments.append(f"request={_python(wanted.request(), 4)}")
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"found |= store.get_online_features(\n{lines})"


def _spine(wanted: Wanted) -> dict[str, Any]:
    return {**wanted.ids, EVENT_TIMESTAMP: rfc3339(microseconds(wanted.when)), **wanted.request()}


def _training(wanted: Wanted) -> Snippet:
    service, names = _python(wanted.service), _python(wanted.names, 4)
    asked = f"feature_service={service}" if wanted.service else f"features={names}"
    spine = {name: [value] for name, value in _spine(wanted).items()}
    times = [EVENT_TIMESTAMP, *(field.name for field in wanted.inputs if field.dtype.kind == "timestamp")]
    typed = "\n".join(f'spine["{name}"] = pd.to_datetime(spine["{name}"], utc=True)' for name in times)
    text = f"""\
import pandas as pd

from featurehub.feature_store import FeatureStore

spine = pd.DataFrame({_python(spine)})
{typed}
training = FeatureStore().get_historical_features(
    spine,
    {asked},
)
print(training)
"""
    note = (
        "Runs in the hub's project folder. A row of the spine is an entity and the time of its label: the values are "
        "those of that time, never later ones."
    )
    return Snippet("training", "Training", text, note)


def _training_command(wanted: Wanted) -> list[Snippet]:
    """`manage.py train` takes a service, and a file that has no lists in it."""
    if not wanted.service or any(field.dtype.kind in ("embedding", "list") for field in wanted.inputs):
        return []
    lines = io.StringIO()
    spine = _spine(wanted)
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(spine)
    writer.writerow("true" if value is True else value for value in spine.values())
    text = f"""\
cat > spine.csv <<'END_OF_SPINE'
{lines.getvalue()}END_OF_SPINE
python manage.py train {wanted.service} --spine spine.csv --out training.parquet
"""
    note = "For a shell in the hub's project folder. It writes spine.csv and training.parquet there."
    return [Snippet("train", "manage.py train", text, note)]


def _feast(wanted: Wanted) -> list[Snippet]:
    """Feast's remote client sends one join key per entity, and no request inputs."""
    if wanted.inputs or not wanted.one_key_each:
        return []
    entities = "\n".join(_feast_entity(entity, key) for entity, (key,) in wanted.keys.items())
    groups = list(dict.fromkeys(part.group for part in wanted.parts))
    views = "\n".join(_view(group, [part for part in wanted.parts if part.group == group]) for group in groups)
    applied = [f'store.registry.apply_entity({_variable(e, "entity")}, "featurehub", commit=True)' for e in wanted.keys]
    applied += [f'store.registry.apply_feature_view({_variable(g, "view")}, "featurehub", commit=True)' for g in groups]
    types = sorted({name for part in wanted.parts for name in _feast_names(part.dtype)})
    text = f"""\
import os
import tempfile

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import {", ".join(types)}

{entities}
unread = FileSource(name="unread", path="unread.parquet", timestamp_field="event_timestamp")
{views}
store = FeatureStore(
    config=RepoConfig(
        project="featurehub",
        provider="local",
        registry=f"{{tempfile.mkdtemp()}}/registry.db",
        auth={{"type": "oidc", "token": os.environ["FEATUREHUB_API_KEY"]}},
        online_store={{"type": "remote", "path": {_python(f"{wanted.base}/feast")}}},
        entity_key_serialization_version=3,
    )
)
{chr(10).join(applied)}
found = store.get_online_features(
    features={_python(wanted.names, 4)},
    entity_rows={_python([dict(wanted.ids)], 4)},
)
print(found.to_dict())
"""
    return [Snippet("feast", "Feast", text, "Needs Feast 0.67, and FEATUREHUB_API_KEY exported to this process.")]


def _feast_entity(entity: str, key: Field) -> str:
    kind = f"ValueType.{key.dtype.kind.upper()}"
    return f'{_variable(entity, "entity")} = Entity(name="{entity}", join_keys=["{key.name}"], value_type={kind})'


def _view(group: str, parts: Sequence[Part]) -> str:
    fields = "".join(f'        Field(name="{part.name}", dtype={_feast_type(part.dtype)}),\n' for part in parts)
    return f"""\
{_variable(group, "view")} = FeatureView(
    name="{group}",
    entities=[{_variable(parts[0].entity, "entity")}],
    schema=[
{fields}    ],
    source=unread,
)"""


def _variable(name: str, kind: str) -> str:
    """A name in Python that no keyword and no import is."""
    return f"{name}_{kind}"


def _feast_type(dtype: Dtype) -> str:
    if dtype.kind == "embedding":
        return "Array(Float32)"
    return f"Array({_FEAST[dtype.item]})" if dtype.kind == "list" else _FEAST[dtype.kind]


def _feast_names(dtype: Dtype) -> list[str]:
    return ["Array", _feast_type(dtype)[6:-1]] if dtype.kind in ("embedding", "list") else [_feast_type(dtype)]
