"""Training datasets over HTTP: ask for one, see what became of it, take its rows as Parquet or as an Arrow stream."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
from django.db import transaction
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework import renderers, serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import snapshot, source_roots
from catalog.access import READ, WRITE, AnyCaller, allowed, principal_of, require
from catalog.api import json_response
from catalog.bodies import read_object, require_keys
from catalog.models import TrainingDataset
from catalog.openapi import documented, in_path
from engine.errors import InvalidInput
from engine.parquet import open_parquet
from engine.schema import EVENT_TIMESTAMP
from serving import arrow, datasets, spines
from serving.plan import Plan
from serving.rights import require_personal
from serving.splits import Split
from serving.training import Asked, Engine

PARQUET = "application/vnd.apache.parquet"
NAME = in_path("name", "The dataset's name.")


class DatasetSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    state = serializers.CharField(help_text="Of its run: queued, running, succeeded, failed, dead or cancelled.")
    run = serializers.UUIDField()
    progress = serializers.FloatField(allow_null=True)
    error = serializers.DictField(allow_null=True)
    rows = serializers.IntegerField(allow_null=True)
    size_bytes = serializers.IntegerField(allow_null=True)
    null_rates = serializers.DictField(child=serializers.FloatField())
    manifest = serializers.DictField(
        allow_null=True, required=False, help_text="What it was made of; docs/formats/dataset.md."
    )
    created_at = serializers.DateTimeField()


class DatasetListSerializer(serializers.Serializer[Any]):
    datasets = DatasetSerializer(many=True)


class DatasetBodySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    spine = serializers.JSONField(help_text='Rows, or {"path": a Parquet or CSV file below a source root}.')
    feature_service = serializers.CharField(required=False, help_text="name, or name@version; or else features.")
    features = serializers.ListField(child=serializers.CharField(), required=False)
    event_timestamp = serializers.CharField(required=False, help_text="The spine's time column: event_timestamp.")
    known_at = serializers.BooleanField(required=False, help_text="Only what had been received by each row's time.")
    statuses = serializers.BooleanField(required=False, help_text="Adds a <feature>__status column per feature.")
    split = serializers.JSONField(
        required=False, help_text='A column `split`: {"at": [time, ...]} or {"fractions": [0.8, 0.2], "seed": "..."}.'
    )

    engine = serializers.ChoiceField(get_args(Engine), required=False, help_text="What joins: duckdb, or spark.")


class DatasetsView(APIView):
    """`POST /api/v1/training-datasets`: have one made in the background; `GET`: all, newest first."""

    scopes = {"GET": READ, "POST": WRITE}

    @documented("training_datasets", answers={200: DatasetListSerializer})
    def get(self, request: Request) -> HttpResponse:
        every = TrainingDataset.objects.select_related("run")
        known = [dataset for dataset in every if allowed(request.user, READ, dataset)]
        listed = [{k: v for k, v in dataset.summary().items() if k != "manifest"} for dataset in known]
        return json_response({"datasets": listed})

    @documented(
        "make_training_dataset",
        answers={202: DatasetSerializer},
        problems=[400, 409, 410, 413, 422],
        body=DatasetBodySerializer,
    )
    def post(self, request: Request) -> HttpResponse:
        dataset = _registered(read_object(request), caller=request.user)
        transaction.on_commit(lambda: datasets.hand_over(dataset))
        location = f"/api/v1/training-datasets/{dataset.name}"
        return json_response(dataset.summary(), status=202, headers={"Location": location})


def _registered(body: dict[str, Any], *, caller: AnyCaller) -> TrainingDataset:
    optional = {"feature_service", "features", "event_timestamp", "known_at", "statuses", "split", "engine"}
    require_keys(body, required={"name", "spine"}, optional=optional)
    for name, kind in {"name": str, "event_timestamp": str, "known_at": bool, "statuses": bool}.items():
        if name in body and not isinstance(body[name], kind):
            raise InvalidInput(f"{name} is {'true or false' if kind is bool else 'a text'}; got {body[name]!r}.")
    if body.get("engine", "duckdb") not in get_args(Engine):
        raise InvalidInput(f"engine is one of {', '.join(get_args(Engine))}; got {body['engine']!r}.")
    asked = _asked(body.get("feature_service"), body.get("features"))
    plan = asked.make_plan()(snapshot.load())
    require(caller, WRITE, plan.group_names)
    event_timestamp = body.get("event_timestamp", EVENT_TIMESTAMP)
    return datasets.register(
        body["name"],
        asked,
        _spine(body["spine"], plan, event_timestamp),
        event_timestamp=event_timestamp,
        known_at=body.get("known_at", False),
        statuses=body.get("statuses", False),
        split=Split.from_json(body["split"]) if body.get("split") is not None else None,
        engine=body.get("engine", "duckdb"),
        by=str(caller),
        principal=principal_of(caller),
    )


def _asked(service: object, features: object) -> Asked:
    if (service is None) == (features is None):
        raise InvalidInput("Ask for one of feature_service and features.")
    if isinstance(service, str):
        return Asked(service=service)
    if isinstance(features, list) and features and all(isinstance(name, str) for name in features):
        return Asked(features=tuple(features))
    raise InvalidInput("feature_service is a name or name@version, features a list of at least one name.")


def _spine(spine: object, plan: Plan, event_timestamp: str) -> pa.Table | Path:
    if isinstance(spine, list):
        return spines.of_rows(
            spine, event_timestamp=event_timestamp, keys=plan.keys, request_inputs=plan.request_inputs
        )
    if isinstance(spine, dict) and isinstance(spine.get("path"), str) and len(spine) == 1:
        found = source_roots.find(spine["path"])
        if len(found) == 1:
            return found[0]
        raise InvalidInput(f"{spine['path']!r} means {len(found)} files; a spine is one.")
    raise InvalidInput('spine is a list of rows, or {"path": "a file below a source root"}.')


def _found(name: str, caller: AnyCaller, action: str) -> TrainingDataset:
    """The dataset, if the caller may do this with all the groups in it; raises NotFound, NotAllowed."""
    dataset = datasets.find(name)
    require(caller, action, dataset)
    return dataset


class DatasetView(APIView):
    """`GET /api/v1/training-datasets/<name>`: its state and manifest; `DELETE`: forget it."""

    scopes = {"GET": READ, "DELETE": WRITE}

    @documented("training_dataset", answers={200: DatasetSerializer}, problems=[404], parameters=[NAME])
    def get(self, request: Request, name: str) -> HttpResponse:
        return json_response(_found(name, request.user, READ).summary())

    @documented("drop_training_dataset", answers={204: None}, problems=[404, 409], parameters=[NAME])
    def delete(self, request: Request, name: str) -> HttpResponse:
        datasets.drop(_found(name, request.user, WRITE))
        return HttpResponse(status=204)


class ParquetRenderer(renderers.BaseRenderer):
    """Stands for the Parquet file while DRF looks what the caller accepts; the view answers the file itself."""

    media_type = PARQUET
    format = "parquet"


class ArrowRenderer(renderers.BaseRenderer):
    """The same for an Arrow stream."""

    media_type = arrow.MEDIA_TYPE
    format = "arrow"


class DatasetDataView(APIView):
    """`GET /api/v1/training-datasets/<name>/data`: the rows as a Parquet file, or as an Arrow stream by `Accept`."""

    scopes = {"GET": READ}
    renderer_classes = [ParquetRenderer, ArrowRenderer]

    @documented(
        "training_dataset_data",
        answers={(200, PARQUET): bytes, (200, arrow.MEDIA_TYPE): bytes},
        problems=[404, 409],
        parameters=[NAME],
    )
    def get(self, request: Request, name: str) -> HttpResponseBase:
        dataset = _found(name, request.user, READ)
        require_personal(request.user, dataset.feature_names())
        path = datasets.data_file(dataset)
        if isinstance(request.accepted_renderer, ArrowRenderer):
            return StreamingHttpResponse(_stream(path), content_type=arrow.MEDIA_TYPE)
        return FileResponse(path.open("rb"), content_type=PARQUET, as_attachment=True, filename=f"{name}.parquet")


def _stream(path: Path) -> Iterator[bytes]:
    """An Arrow IPC stream of the file's rows, a piece for each batch."""
    with open_parquet(path) as file:
        pieces = _Pieces()
        with pa.ipc.new_stream(pieces, file.schema_arrow) as writer:
            for batch in file.iter_batches():
                writer.write_batch(batch)
                yield pieces.take()
        yield pieces.take()


class _Pieces(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(self._written[-1])

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken
