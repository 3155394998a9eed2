"""The catalog's tables, one noun a file."""

from catalog.models.acceptance import Acceptance
from catalog.models.api_key import ApiKey
from catalog.models.dataset import TrainingDataset
from catalog.models.entity import Entity, JoinKey
from catalog.models.erasure import Erasure
from catalog.models.feature import Feature, FeatureType, OnViolation
from catalog.models.group import FeatureGroup, GroupInput, StoredSchema
from catalog.models.offline_damage import OfflineDamage
from catalog.models.owner import Owner, Tag
from catalog.models.run import Run, RunKind, RunState
from catalog.models.service import FeatureService, ServiceFeature
from catalog.models.source import DataSource
from catalog.models.state import CatalogState
from catalog.models.status import Status

__all__ = [
    "Acceptance",
    "ApiKey",
    "CatalogState",
    "DataSource",
    "Entity",
    "Erasure",
    "Feature",
    "FeatureGroup",
    "FeatureService",
    "FeatureType",
    "GroupInput",
    "JoinKey",
    "OfflineDamage",
    "OnViolation",
    "Owner",
    "Run",
    "RunKind",
    "RunState",
    "ServiceFeature",
    "Status",
    "StoredSchema",
    "Tag",
    "TrainingDataset",
]
