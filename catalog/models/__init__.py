"""The catalog's tables, one noun a file."""

from catalog.models.acceptance import Acceptance
from catalog.models.api_key import ApiKey
from catalog.models.applied import AppliedDefinition
from catalog.models.dataset import DatasetFeature, TrainingDataset
from catalog.models.entity import Entity, JoinKey
from catalog.models.erasure import Erasure
from catalog.models.feature import Feature, FeatureType, OnViolation
from catalog.models.feature_use import FeatureUse
from catalog.models.follow import Follow, Inbox, Notice, NoticeKind
from catalog.models.freshness import GroupFreshness
from catalog.models.group import FeatureGroup, GroupInput, RequestInput, StoredSchema
from catalog.models.offline_damage import OfflineDamage
from catalog.models.owner import PII, Owner, Tag
from catalog.models.refusal import FailedLogin, Reason, Refusal
from catalog.models.review import ReviewAnswer, ReviewRequest
from catalog.models.role import GroupRole, Role
from catalog.models.run import Run, RunKind, RunState
from catalog.models.service import FeatureService, ServiceFeature
from catalog.models.source import DataSource
from catalog.models.state import CatalogState
from catalog.models.statistics import FeatureStatistics
from catalog.models.status import Status

__all__ = [
    "PII",
    "Acceptance",
    "ApiKey",
    "AppliedDefinition",
    "CatalogState",
    "DataSource",
    "DatasetFeature",
    "Entity",
    "Erasure",
    "FailedLogin",
    "Feature",
    "FeatureGroup",
    "FeatureService",
    "FeatureStatistics",
    "FeatureType",
    "FeatureUse",
    "Follow",
    "GroupFreshness",
    "GroupInput",
    "GroupRole",
    "Inbox",
    "JoinKey",
    "Notice",
    "NoticeKind",
    "OfflineDamage",
    "OnViolation",
    "Owner",
    "Reason",
    "Refusal",
    "RequestInput",
    "ReviewAnswer",
    "ReviewRequest",
    "Role",
    "Run",
    "RunKind",
    "RunState",
    "ServiceFeature",
    "Status",
    "StoredSchema",
    "Tag",
    "TrainingDataset",
]
