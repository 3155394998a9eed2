"""The training datasets' part of an erasure: the entity's rows go from the spine and from the data, and its hash is
taken again.

A dataset stays, and can be made again without these rows. What it was before is told by the hash that its manifest had,
which is kept beside the number of rows that went.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from django.conf import settings
from django.utils import timezone

from catalog import stores
from catalog.models import RunState, TrainingDataset
from engine import faults
from engine.content_hash import ContentHash
from engine.errors import CorruptData
from engine.parquet import open_parquet
from engine.pointintime.result import write_file
from engine.pointintime.rule import STATUS_SUFFIX
from engine.pointintime.spine import BATCH_ROWS
from ingestion.erasure.offline import Waiting
from ingestion.erasure.receipt import Receipt
from ingestion.erasure.target import Target

_UNDER_WAY = (RunState.QUEUED, RunState.RUNNING)


def count_rows(target: Target) -> dict[str, int]:
    """How many rows of each dataset are to go, by its name."""
    counted = {}
    for dataset in _candidates(target):
        if rows := max(_rows_in(path, target) or 0 for path in (_spine(dataset), *_data(dataset))):
            counted[dataset.name] = rows
    return counted


def erase(target: Target, receipt: Receipt) -> list[Waiting]:
    """Take the entity's rows out of every dataset that is there; those that are being made are waited for."""
    waiting = []
    for dataset in _candidates(target):
        receipt.still()
        paths = [_spine(dataset), *_data(dataset)]
        rows = max((_rows_in(path, target) or 0 for path in paths), default=0)
        if dataset.run.state in _UNDER_WAY:
            if rows or dataset.run.acceptance_id < target.limit.accepted:
                waiting.append(Waiting(f"the training dataset {dataset.name} is being made"))
            continue
        if rows:
            before = (dataset.manifest or {}).get("result", {}).get("sha256")
            told = receipt.notes("datasets").get(dataset.name, {})
            receipt.note(
                "datasets", dataset.name, rows=rows, sha256_before=told.get("sha256_before", before), is_told=False
            )
            for path in paths:
                if _rows_in(path, target):
                    _write_without(path, target)
                    faults.hit("erase.after_dataset_file")
        if receipt.notes("datasets").get(dataset.name, {}).get("is_told") is False:
            with receipt.saving():
                _tell(dataset, receipt)
                receipt.add("datasets", dataset.name, is_told=True)
    return [*waiting, *_remove_left(target, receipt)]


def _candidates(target: Target) -> list[TrainingDataset]:
    """The datasets whose rows may be of the entity: those of its groups, and those that were never made."""
    groups = {group.name for group in target.groups()}
    return [
        dataset
        for dataset in TrainingDataset.objects.select_related("run").order_by("pk")
        if dataset.manifest is None or any(part["group"] in groups for part in dataset.manifest["groups"])
    ]


def _folder(dataset: TrainingDataset) -> Path:
    return stores.dataset_folder(str(dataset.run_id))


def _spine(dataset: TrainingDataset) -> Path:
    return _folder(dataset) / "spine.parquet"


def _data(dataset: TrainingDataset) -> list[Path]:
    """The dataset's file and what attempts have left."""
    return sorted(_folder(dataset).glob("data-*.parquet"))


def _rows_in(path: Path, target: Target) -> int | None:
    """How many rows of a file are of the entity; 0 without its keys, None when it cannot be read."""
    try:
        with open_parquet(path) as file:
            if not set(target.key_names) <= set(file.schema_arrow.names):
                return 0
            batches = file.iter_batches(BATCH_ROWS, columns=target.key_names)
            return sum(pl.DataFrame(batch).filter(target.is_in_spine()).height for batch in batches)
    except FileNotFoundError:
        return 0
    except (pa.ArrowException, OSError):
        return None


def _write_without(path: Path, target: Target) -> None:
    with open_parquet(path) as file:
        write_file(_batches_without(file, target), file.schema_arrow, path)


def _batches_without(file: Any, target: Target) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(BATCH_ROWS):
        keys = pl.DataFrame(batch.select(target.key_names))
        unwanted = keys.select(target.is_in_spine().alias("unwanted"))["unwanted"]
        yield batch.filter(pa.array((~unwanted).to_list(), pa.bool_()))


def _tell(dataset: TrainingDataset, receipt: Receipt) -> None:
    """Make the manifest that of the file as it is now."""
    held = TrainingDataset.objects.select_for_update().get(pk=dataset.pk)
    if not held.manifest:
        return
    path = _folder(held) / held.file
    manifest: dict[str, Any] = held.manifest
    names = [name for name, _ in manifest["result"]["columns"]]
    added = {*manifest["outputs"], *(name + STATUS_SUFFIX for name in manifest["outputs"] if manifest["statuses"])}
    content = _hashed(path)
    told = receipt.notes("datasets")[held.name]
    manifest["spine"] = {"rows": content.rows, "sha256": content.hexdigest([n for n in names if n not in added])}
    nulls = {name: content.nulls(name) for name in names}
    manifest["result"] |= {"rows": content.rows, "sha256": content.hexdigest(), "nulls": nulls}
    erased = {"at": timezone.now().isoformat(), "rows": told["rows"], "sha256_before": told["sha256_before"]}
    manifest["erased"] = [*manifest.get("erased", []), erased]
    held.size_bytes = path.stat().st_size
    held.save(update_fields=["manifest", "size_bytes"])


def _hashed(path: Path) -> ContentHash:
    try:
        with open_parquet(path) as file:
            content = ContentHash(file.schema_arrow)
            for batch in file.iter_batches(BATCH_ROWS):
                content.update(batch)
    except (pa.ArrowException, OSError) as error:
        raise CorruptData(f"The dataset file {path} cannot be read: {error}") from error
    return content


def _remove_left(target: Target, receipt: Receipt) -> list[Waiting]:
    """Files that killed makers of datasets have left: removed once as old as a file is kept for readers."""
    known = {str(run) for run in TrainingDataset.objects.values_list("run_id", flat=True)}
    root, waiting = stores.dataset_folder(""), []
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    for folder in folders:
        pattern = ".data-*.part" if folder.name in known else "*"
        for path in [*folder.glob(pattern), *folder.glob(".data-*.part")]:
            if not path.exists() or _rows_in(path, target) == 0:
                continue
            left = path.stat().st_mtime + settings.FEATUREHUB_ERASED_FILES_KEPT_SECONDS - time.time()
            if left > 0:
                waiting.append(Waiting("a file of a dataset was begun and not ended", left))
                continue
            receipt.note("left_files", f"{folder.name}/{path.name}")
            path.unlink(missing_ok=True)
    return waiting
