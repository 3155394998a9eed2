"""The pages on which people keep the catalog; each module registers one noun."""

from catalog.admin import (
    api_key,
    definitions,
    entity,
    feature,
    feature_use,
    group,
    offline_damage,
    owner,
    person,
    refusal,
    review,
    run,
    schedule,
    service,
    source,
)

__all__ = [
    "api_key",
    "definitions",
    "entity",
    "feature",
    "feature_use",
    "group",
    "offline_damage",
    "owner",
    "person",
    "refusal",
    "review",
    "run",
    "schedule",
    "service",
    "source",
]
