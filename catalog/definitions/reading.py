"""Reads definitions files: YAML by a safe loader into a `Document`, with every problem's file, line and path.

The node tree is walked rather than loaded, since only nodes have lines and show a key that stands twice. Anchors and
aliases are refused (a few lines of them unfold into gigabytes), and so are deep nesting, tags and large files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from catalog.definitions import document
from catalog.definitions.document import Document, Place, PlacedMapping
from engine.errors import InvalidDefinition, Problem, near_names

MAX_FILE_BYTES = 5_000_000
MAX_DEPTH = 12  # a definitions file needs 7

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
#: The model that a key holds, for the near names of an unknown key beside it.
_MODELS: dict[str, type[BaseModel]] = {
    "owners": document.Owner,
    "entities": document.Entity,
    "join_keys": document.JoinKey,
    "feature_groups": document.FeatureGroup,
    "inputs": document.Input,
    "request_inputs": document.RequestInput,
    "features": document.Feature,
    "transformation": document.Transformation,
    "validation": document.Validation,
    "source": document.Source,
    "schedule": document.Schedule,
    "feature_services": document.FeatureService,
}
_PLAINER = {
    "missing": "is required",
    "string_type": "text is expected, not {input}; quote it",
    "bool_type": "true or false is expected, not {input}",
    "int_type": "a whole number is expected, not {input}",
    "tuple_type": "a list is expected, not {input}",
    "too_short": "at least one is expected",
    "model_type": "a mapping of keys is expected, not {input}",
}
_SHOWN_INPUT = 60


class _Refused(Exception):
    """A file that cannot be read at all."""


@dataclass
class Reading:
    """What some files hold: a document of all that could be read, everything that could not, and the names of that.

    `half_read` lets later checks keep quiet about a name whose definition is broken: it has its problem already.
    """

    document: Document = field(default_factory=Document)
    problems: list[Problem] = field(default_factory=list)
    half_read: set[str] = field(default_factory=set)


def read(files: Sequence[str | Path]) -> Reading:
    """Read several files as one; `-` is standard input. Raises nothing: what is wrong stands in `problems`."""
    reading = Reading()
    parts: list[Document] = []
    for file in map(str, files):
        name = "<stdin>" if file == "-" else file
        try:
            text = _text(file)
        except (_Refused, OSError, UnicodeDecodeError) as refused:
            detail = refused.strerror if isinstance(refused, OSError) else None
            reading.problems.append(Problem(name, detail or str(refused)))
        else:
            parts += _parts(name, text, reading)
    reading.document = _merged(parts)
    return reading


def read_texts(texts: Mapping[str, str]) -> Reading:
    """The same of texts that are in memory already, each under the name that its problems are told with."""
    reading = Reading()
    parts = [part for name, text in texts.items() for part in _parts(name, text, reading)]
    reading.document = _merged(parts)
    return reading


def _parts(name: str, text: str, reading: Reading) -> list[Document]:
    """The document in a text; none where it cannot be read, which is noted."""
    try:
        data = _Walk(name, reading.problems).plain(_compose(text))
        return [_validated(data, reading)]
    except _Refused as refused:
        reading.problems.append(Problem(name, str(refused)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reading.problems.append(Problem(f"{name}:{line}", f"not YAML: {error.problem}"))
    except yaml.YAMLError as error:
        reading.problems.append(Problem(name, f"not YAML: {str(error).splitlines()[0]}"))
    return []


def reading_of(data: PlacedMapping) -> Reading:
    """The same of definitions that are in memory already: a document whose mappings know where they were written.

    What breaks the structure is cut out of `data`.
    """
    reading = Reading()
    reading.document = _validated(data, reading)
    return reading


def read_one(model: type[document.Found], data: PlacedMapping) -> document.Found:
    """One definition that is in memory already; raises InvalidDefinition with every problem of it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = _problems(data, error.errors(include_url=False), model)
        raise InvalidDefinition(f"The {model.__name__.lower()} cannot be read.", problems) from error


def _merged(parts: list[Document]) -> Document:
    merged: dict[str, Any] = {
        key: tuple(item for part in parts for item in getattr(part, key)) for key in Document.model_fields
    }
    return Document.model_construct(None, **merged)


def _text(file: str) -> str:
    if file == "-":
        content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _Refused(f"larger than {MAX_FILE_BYTES // 1_000_000} MB; split it into several files")
    return content.decode("utf-8-sig")


def _compose(text: str) -> yaml.Node | None:
    """The node tree, once its events hold no trick; depth is counted before the composer recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if getattr(event, "anchor", None) is not None:
            raise _Refused(f"line {line}: anchors and aliases are refused; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _Refused(f"line {line}: nested deeper than {MAX_DEPTH} levels")
    return yaml.compose(text, Loader=_LOADER)


class _Walk:
    """Turns nodes into plain values; each mapping keeps its place."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.scalars = yaml.constructor.SafeConstructor()

    def plain(self, root: yaml.Node | None) -> PlacedMapping:
        if root is None:
            return PlacedMapping(Place(self.file, 1))
        if not isinstance(root, yaml.MappingNode):
            raise _Refused(f"a mapping of {', '.join(Document.model_fields)} is expected")
        return self._mapping(root, "")

    def _value(self, node: yaml.Node, path: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path)
            return [self._value(item, f"{path}[{number}]") for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str) -> PlacedMapping:
        self._check_tag(node, path)
        lines: dict[str, int] = {}
        found = PlacedMapping(Place(self.file, node.start_mark.line + 1, path, lines))
        for key_node, value_node in node.value:
            key, line = _key(key_node), key_node.start_mark.line + 1
            inner = f"{path}.{key}" if path else key
            if key in found:
                self._problem(key_node, inner, f"the key stands twice; first in line {lines[key]}")
                continue
            lines[key] = line
            if isinstance(value_node, yaml.SequenceNode):
                lines.update({f"{key}[{i}]": n.start_mark.line + 1 for i, n in enumerate(value_node.value)})
            found[key] = self._value(value_node, inner)
        return found

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            return self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            reason = getattr(error, "problem", None) or error
            self._problem(node, path, f"{str(node.value)[:_SHOWN_INPUT]!r} cannot be read: {reason}")
            return None

    def _check_tag(self, node: yaml.Node, path: str) -> None:
        if node.tag not in _PLAIN_TAGS:
            self._problem(node, path, f"the tag {node.tag} is refused")

    def _problem(self, node: yaml.Node, path: str, detail: str) -> None:
        self.problems.append(Problem(f"{self.file}:{node.start_mark.line + 1} {path}".rstrip(), detail))


def _key(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "(a list or a mapping)"


def _validated(data: PlacedMapping, reading: Reading) -> Document:
    """The document in `data`. What breaks its structure is noted once and cut out, until the rest is whole."""
    noted = False
    while True:
        try:
            return Document.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        if not noted:
            reading.problems += _problems(data, errors, Document)
            noted = True
        _cut([_reached(data, wrong["loc"])[-1] for wrong in errors], reading.half_read)


def _reached(data: Any, loc: tuple[int | str, ...]) -> list[tuple[Any, Any]]:
    """The (container, key) pairs from the root along `loc`, as far as they exist."""
    steps = []
    for key in loc:
        if not (key in data if isinstance(data, dict) else isinstance(data, list) and isinstance(key, int)):
            break
        steps.append((data, key))
        data = data[key]
    return steps


def _cut(places: list[tuple[Any, Any]], half_read: set[str]) -> None:
    """Remove the values at (container, key); all were found before the first removal, so that indexes hold."""
    of_lists: dict[int, tuple[list[Any], set[int]]] = {}
    for container, key in places:
        removed = container.get(key) if isinstance(container, dict) else container[key]
        if isinstance(removed, dict) and isinstance(removed.get("name"), str):
            half_read.add(removed["name"])
        if isinstance(container, dict):
            container.pop(key, None)
        else:
            of_lists.setdefault(id(container), (container, set()))[1].add(key)
    for items, indexes in of_lists.values():
        items[:] = [item for index, item in enumerate(items) if index not in indexes]


def _problems(data: PlacedMapping, errors: list[ErrorDetails], root: type[BaseModel]) -> list[Problem]:
    """The errors in words, but for lists that are only too short since pydantic counts no item that is wrong itself."""
    inner = {wrong["loc"][:end] for wrong in errors for end in range(len(wrong["loc"]))}
    told = [wrong for wrong in errors if wrong["type"] != "too_short" or wrong["loc"] not in inner]
    return [_in_words(data, wrong, root) for wrong in told]


def _in_words(data: PlacedMapping, wrong: ErrorDetails, root: type[BaseModel]) -> Problem:
    """One of pydantic's errors in the words and at the place of the file."""
    steps = _reached(data, wrong["loc"])
    place, key = data.place, ""
    for container, step in steps:
        if isinstance(container, PlacedMapping):
            place, key = container.place, step
        else:
            key = f"{key}[{step}]"
        if isinstance(container[step], PlacedMapping):
            place, key = container[step].place, ""
    if wrong["type"] == "missing":
        key = str(wrong["loc"][-1])
    if wrong["type"] == "extra_forbidden":
        known = _known_keys(wrong["loc"], root)
        near = near_names(key, known)
        return Problem(place.of(key), "unknown key" + ("." if near else f"; known are {', '.join(known)}."), near)
    shown = repr(wrong["input"])[:_SHOWN_INPUT]
    detail = _PLAINER.get(wrong["type"], "{message}").format(input=shown, message=wrong["msg"])
    return Problem(place.of(key) if key else str(place), detail.removeprefix("Value error, "))


def _known_keys(loc: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    holders = [step for step in loc[:-1] if isinstance(step, str)]
    return list((_MODELS[holders[-1]] if holders else root).model_fields)
