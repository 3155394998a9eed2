"""The files, the catalog, and the catalog as it would be with the files applied: what checking and planning look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from catalog.definitions.document import Document, Entity, Feature, FeatureGroup, FeatureService, Input, JoinKey, Owner
from catalog.definitions.exporting import recorded
from catalog.definitions.reading import Reading
from catalog.models import Status, StoredSchema
from catalog.models.status import effective_status
from engine.on_request import computation_of, divided
from engine.schema import Dtype, Field, GroupSchema


def wanted_order(before: Sequence[str], named: Sequence[str]) -> list[str]:
    """The order of a group's features: the file's, then those it does not name; the old one where they agree.

    >>> wanted_order(["gone", "a", "b"], ["a", "b"]), wanted_order(["gone", "a", "b"], ["b", "new", "a"])
    (['gone', 'a', 'b'], ['b', 'new', 'a', 'gone'])
    """
    if [name for name in before if name in named] == list(named):
        return list(before)
    return [*named, *(name for name in before if name not in named)]


@dataclass
class World:
    """`files` over `catalog`. Of objects that the files define, keys are theirs; an absent status is the catalog's.

    `local` names the features whose transformation the process at work holds as a Python object.
    """

    reading: Reading
    local: frozenset[str] = frozenset()
    catalog: Document = field(default_factory=recorded)

    @property
    def files(self) -> Document:
        return self.reading.document

    @cached_property
    def owners(self) -> dict[str, Owner]:
        return self.catalog.find(Owner) | self.files.find(Owner)

    @cached_property
    def entities_before(self) -> dict[str, Entity]:
        return self.catalog.find(Entity)

    @cached_property
    def entities(self) -> dict[str, Entity]:
        return self.entities_before | self.files.find(Entity)

    @cached_property
    def before(self) -> dict[str, FeatureGroup]:
        return self.catalog.find(FeatureGroup)

    @cached_property
    def groups(self) -> dict[str, FeatureGroup]:
        """Each group with all its features: also those that the files name no more, which stay as columns."""
        return self.before | {name: self._completed(group) for name, group in self.files.find(FeatureGroup).items()}

    def _completed(self, group: FeatureGroup) -> FeatureGroup:
        old = (
            {feature.name: feature for feature in self.before[group.name].features} if group.name in self.before else {}
        )
        new = {feature.name: feature for feature in group.features}
        order = wanted_order(list(old), [feature.name for feature in group.features])
        return group.model_copy(update={"features": tuple((old | new)[name] for name in order)})

    @cached_property
    def features_before(self) -> dict[str, Feature]:
        return self.catalog.find(Feature)

    @cached_property
    def features(self) -> dict[str, Feature]:
        return {f"{group.name}:{feature.name}": feature for group in self.groups.values() for feature in group.features}

    @cached_property
    def named_features(self) -> dict[str, Feature]:
        return self.files.find(Feature)

    @cached_property
    def services_before(self) -> dict[str, FeatureService]:
        return self.catalog.find(FeatureService)

    @cached_property
    def services(self) -> dict[str, FeatureService]:
        return self.services_before | self.files.find(FeatureService)

    @cached_property
    def stored(self) -> dict[str, list[StoredSchema]]:
        """The schemas that rows of each group were written under, oldest first."""
        by_group: dict[str, list[StoredSchema]] = {}
        for schema in StoredSchema.objects.select_related("group").order_by("number"):
            by_group.setdefault(schema.group.name, []).append(schema)
        return by_group

    def group_status(self, name: str, *, before: bool = False) -> str:
        """The status a group will have, or has; a group that is to be archived is so after all else."""
        old = self.before[name].status if name in self.before else None
        new = None if before else self.groups[name].status
        return new or old or FeatureGroup.default_status

    def feature_status(self, name: str) -> str:
        """The effective status that `group:feature` will have."""
        old = self.features_before.get(name)
        own = self.features[name].status or (old.status if old else None) or ""
        return effective_status(own, self.group_status(name.partition(":")[0]))

    def service_status(self, name: str) -> str:
        old = self.services_before.get(name)
        return self.services[name].status or (old.status if old else None) or FeatureService.default_status

    def readers(self, name: str) -> list[str]:
        """The services that will read a `group:feature`, or any feature of a group, and are not archived."""
        return [
            service
            for service, made in self.services.items()
            if self.service_status(service) != Status.ARCHIVED
            and any(name in (chosen, chosen.partition(":")[0]) for chosen in made.features)
        ]

    def needed_from_request(self, service: FeatureService) -> list[str]:
        """The request inputs that a read of the service needs, each as `name (dtype)`."""
        needed: dict[str, str] = {}
        for name in dict.fromkeys(chosen.partition(":")[0] for chosen in service.features):
            asked = {chosen.partition(":")[2] for chosen in service.features if chosen.startswith(f"{name}:")}
            defined = self.schema(self.groups[name])
            computed = [feature.name for feature in defined.on_request if feature.name in asked]
            for sent in computation_of(defined, computed).request_inputs:
                needed[sent.name] = f"{sent.name} ({sent.dtype})"
        return list(needed.values())

    def schema(self, group: FeatureGroup) -> GroupSchema:
        """The columns of a group as defined, with schema id 0; no join keys when its entity is unknown."""
        entity = self.entities.get(group.entity)
        request_inputs = _typed(group.request_inputs)
        stored, computed = divided((feature.column() for feature in group.features), request_inputs)
        return GroupSchema(
            group=group.name,
            version=group.version,
            schema_id=0,
            join_keys=_typed(entity.join_keys) if entity else (),
            features=stored,
            inputs=_typed(group.inputs),
            event_timestamp=group.event_timestamp,
            created_timestamp=group.created_timestamp or "",
            request_inputs=request_inputs,
            on_request=computed,
        )


def _typed(columns: Sequence[Input | JoinKey]) -> tuple[Field, ...]:
    return tuple(Field(column.name, Dtype.parse(column.dtype)) for column in columns)
