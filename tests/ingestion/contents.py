"""What both stores hold of a group, read past the code under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import redis
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from django.conf import settings

from catalog.models import FeatureGroup
from catalog.schemas import from_stored
from engine.online.codec import OnlineRow, decode_row
from engine.schema import VERSION_ORDER


def folder(group: FeatureGroup) -> Path:
    return Path(settings.FEATUREHUB_OFFLINE_PATH) / group.name / f"v{group.version}"


def offline(group: FeatureGroup) -> list[dict[str, Any]]:
    """Every offline row of the group's version, in version order; none while there is no table."""
    try:
        uris = DeltaTable(folder(group)).file_uris()
    except TableNotFoundError:
        return []
    frames = [pl.read_parquet(folder(group) / Path(uri).name) for uri in uris]
    return pl.concat(frames, how="diagonal").sort(VERSION_ORDER).to_dicts() if frames else []


def offline_version(group: FeatureGroup) -> int:
    """The newest version of the group's table; -1 while there is none."""
    try:
        return DeltaTable(folder(group)).version()
    except TableNotFoundError:
        return -1


def data_files(group: FeatureGroup) -> list[str]:
    """The Parquet files beside the table's log, named by it or not."""
    return sorted(path.name for path in folder(group).glob("*.parquet"))


def online_rows(group: FeatureGroup) -> dict[str, OnlineRow]:
    """Every online row of the group's version by its entity key (`s2:C1`)."""
    with _client() as client:
        keys = _keys(client, group)
        values = client.mget(keys) if keys else []
    start = len(_prefix(group))
    return {key[start:-1].decode(): decode_row(value) for key, value in zip(keys, values, strict=True) if value}


def forget_online(group: FeatureGroup) -> None:
    """Take every online row of the group away, as if it had never been brought there."""
    with _client() as client:
        for key in _keys(client, group):
            client.delete(key)


def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.ONLINE_REDIS_URL)


def _prefix(group: FeatureGroup) -> bytes:
    return f"{settings.FEATUREHUB_KEY_PREFIX}:{group.name}:{group.version}:{{".encode()


def _keys(client: redis.Redis, group: FeatureGroup) -> list[bytes]:
    return sorted(key for key in client.scan_iter(count=10_000) if key.startswith(_prefix(group)))


def online(group: FeatureGroup) -> dict[str, dict[str, Any]]:
    """The stored values of every online row by feature name, by its entity key."""
    layouts = {stored.number: from_stored(stored).feature_names for stored in group.schemas.all()}
    return {key: dict(zip(layouts[row.schema_id], row.values, strict=True)) for key, row in online_rows(group).items()}
