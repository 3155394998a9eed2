"""Training datasets that the hub keeps: registered at once, made by a run, made again from their manifest.

HTTP, `manage.py datasets`, the admin and Celery call these. A dataset's folder holds its spine and its file; an attempt
writes a file of its own, and the one whose lease stands at the end becomes the dataset's.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from kombu.exceptions import OperationalError as BrokerDown

from catalog import runs, stores
from catalog.models import Run, RunKind, RunState, TrainingDataset
from catalog.models.naming import NAME_RULE, validate_name
from catalog.runs import Lease
from engine.errors import (
    Conflict,
    InvalidInput,
    LeaseLost,
    NotFound,
    RunFailed,
    near_names,
)
from engine.offline.storage import storage_errors
from engine.pointintime.result import write_file
from engine.pointintime.spine import Spine
from engine.schema import EVENT_TIMESTAMP, Field
from serving import spines, training
from serving.manifest import Manifest, differences
from serving.splits import COLUMN, Split
from serving.training import Asked, Engine, Follow

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0


def register(
    name: str,
    asked: Asked,
    spine: pa.Table | Path,
    *,
    event_timestamp: str = EVENT_TIMESTAMP,
    known_at: bool = False,
    statuses: bool = False,
    split: Split | None = None,
    engine: Engine = "duckdb",
    by: str = "",
    principal: str = "",
) -> TrainingDataset:
    """A dataset to be made by a queued run, its spine kept; see `hand_over` and `execute`. A split is a column of it.

    Raises Conflict for a name that is taken, InvalidSpine for a spine that cannot be joined, naming each problem, and
    what a read of the features raises, InvalidInput for an engine that is not here: all of it before anything is kept.
    """
    training.require_engine(engine)
    _check_name(name)
    parquet, keys = training.checked_spine(asked, spine, event_timestamp=event_timestamp, statuses=statuses)
    if split and COLUMN in spines.columns_of(parquet):
        raise InvalidInput(f"The spine has a column {COLUMN} already; rename it, or leave the split out.")
    with storage_errors(stores.offline_root()):
        written = _keep_spine(Spine.of(parquet, event_timestamp), split, keys)
    try:
        with transaction.atomic():
            run = Run.queue(None, kind=RunKind.TRAIN, requested_by=by, principal=principal, on_spark=engine == "spark")
            dataset = TrainingDataset.objects.create(
                name=name,
                run=run,
                service=asked.service,
                features=list(asked.features),
                event_timestamp=event_timestamp,
                known_at=known_at,
                statuses=statuses,
                split=split.as_json() if split else None,
            )
            written.rename(stores.dataset_folder(str(run.pk)))
            return dataset
    except IntegrityError as error:
        shutil.rmtree(written)
        raise _taken(name) from error


def _check_name(name: str) -> None:
    try:
        validate_name(name)
    except ValidationError as error:
        raise InvalidInput(f"A dataset's name is {NAME_RULE}; got {name!r}.") from error
    if TrainingDataset.objects.filter(name=name).exists():
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a dataset {name} already; drop it first, or choose another name.")


def _keep_spine(spine: Spine, split: Split | None, keys: Sequence[Field]) -> Path:
    """A new folder with the spine in it, synced; before any transaction, since others wait for one that is open."""
    schema = spine.schema.append(pa.field(COLUMN, pa.string())) if split else spine.schema
    batches = (
        pa.record_batch(
            [*batch.columns, *([split.parts(batch, spine.event_timestamp, keys)] if split else [])], schema=schema
        )
        for batch in spine.batches()
    )
    folder = stores.dataset_folder(f".{uuid.uuid4()}")
    folder.mkdir(parents=True)
    try:
        write_file(batches, schema, folder / "spine.parquet")
    except BaseException:
        folder.rmdir()
        raise
    return folder


def find(name: str) -> TrainingDataset:
    """The dataset of that name; raises NotFound with near names."""
    known = TrainingDataset.objects.select_related("run")
    found = known.filter(name=name).first() if "\0" not in name else None
    if found is None:
        near = near_names(name, list(known.values_list("name", flat=True)))
        raise NotFound(f"There is no dataset {name}." + (f" Did you mean {', '.join(near)}?" if near else ""))
    return found


def hand_over(dataset: TrainingDataset) -> None:
    """Tell a worker of the dataset's run. When the broker does not answer it stays queued and is told of again."""
    try:
        runs.hint(dataset.run)
    except BrokerDown as error:
        log.warning("the broker does not take tasks, so run %s waits: %s", dataset.run_id, error)


def execute(run: Run, *, progress: Callable[[Run], None] = lambda _: None) -> Run:
    """Make the dataset of a queued run, or of one whose worker is gone; a run that has ended is left as it is.

    Raises Conflict while another worker makes it, LeaseLost when it was cancelled or taken from this one, and what
    `training.write` raises, after it was recorded.
    """
    runs.settle(run.pk)
    lease = runs.take(run)
    if lease is None:
        return run
    with lease, runs.failures_recorded(lease.fail), storage_errors(stores.offline_root()):
        _make(run, lease, progress)
    return run


def _make(run: Run, lease: Lease, progress: Callable[[Run], None]) -> None:
    dataset = run.dataset
    folder = stores.dataset_folder(str(run.pk))
    spine, output = folder / "spine.parquet", folder / f"data-{lease.token}.parquet"
    run.rows_read = pq.read_metadata(spine).num_rows
    reported = time.monotonic()

    def follow(rows: int | None) -> None:
        nonlocal reported
        run.rows_accepted += rows or 0
        if rows is None or time.monotonic() - reported > REPORT_SECONDS:
            lease.report()
            reported = time.monotonic()
        progress(run)

    lease.report()
    recipe = training.plan(
        Asked(dataset.service, tuple(dataset.features)),
        spines.columns_of(spine),
        event_timestamp=dataset.event_timestamp,
        known_at=dataset.known_at,
        statuses=dataset.statuses,
    )
    manifest = training.write(recipe, spine, output, follow=follow, engine="spark" if run.on_spark else "duckdb")
    try:
        with transaction.atomic():
            lease.hold()
            dataset.manifest, dataset.file, dataset.size_bytes = manifest.as_json(), output.name, output.stat().st_size
            dataset.save(update_fields=["manifest", "file", "size_bytes"])
            lease.succeed()
    except LeaseLost:  # of any other failure the outcome may be unknown, and the dataset may name this file
        output.unlink()
        raise
    _remove_others(folder, output)


def _remove_others(folder: Path, output: Path) -> None:
    """What attempts whose workers were killed have left."""
    for path in [*folder.glob("data-*.parquet"), *folder.glob(".data-*.part")]:
        if path != output:
            path.unlink(missing_ok=True)


def data_file(dataset: TrainingDataset) -> Path:
    """The Parquet file of a dataset; raises Conflict while it is being made or when that failed."""
    if not dataset.manifest:
        run = dataset.run
        why = f": {run.error}" if run.error else ""
        raise Conflict(f"The dataset {dataset.name} is not there: its run {run.pk} is {run.state}{why}")
    return stores.dataset_folder(str(dataset.run_id)) / dataset.file


def rebuild(
    dataset: TrainingDataset, output: Path, *, engine: Engine = "duckdb", follow: Follow = lambda _: None
) -> Manifest:
    """Make the dataset again from its manifest, into a file of the caller; the new manifest, which has the same hash,
    whatever engine made it first.

    Raises RunFailed saying what differs (the file is kept, for comparing), CorruptData when a file of the history is
    missing or damaged, and Conflict when the dataset was never made.
    """
    spine = data_file(dataset).with_name("spine.parquet")
    old = Manifest.from_json(dataset.manifest or {})
    new = training.write(old.recipe, spine, output, follow=follow, engine=engine)
    if different := differences(old, new):
        raise RunFailed(f"{dataset.name} came out differently: {'; '.join(different)}.")
    return new


def drop(dataset: TrainingDataset) -> None:
    """Forget a dataset and remove its files; the history that it was made of need not be kept for it any more.

    Killed on the way it leaves its folder, which upkeep removes.

    Raises Conflict while its run has not ended.
    """
    run = dataset.run
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        raise Conflict(f"The dataset {dataset.name} is being made by run {run.pk}; cancel that first.")
    dataset.delete()
    with storage_errors(stores.offline_root()):
        shutil.rmtree(stores.dataset_folder(str(run.pk)))
