"""How a list of features is read: which keys to ask for and which slots of the rows to pick.

A plan is immutable, made once for what was asked of one catalog version, and kept with that catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from catalog import stores
from catalog.models import Status
from catalog.snapshot import Catalog, FeatureSnapshot, GroupSnapshot
from engine.errors import InvalidInput, OnlineStoreCold
from engine.on_request import Computation
from engine.online.codec import StoredValue, body_decoder
from engine.schema import Field
from engine.status import PRESENT
from engine.status import Status as ReadStatus
from serving.names import require_servable

Pick = Callable[[tuple[Any, ...]], tuple[Any, ...]]
#: Plans that one catalog keeps: callers choose what they ask for, and memory has an end.
REMEMBERED_AT_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows of one schema give the group's asked features: `decode` reads a body, whose values are of the schema's
    types; `pick` takes the asked ones out of it, None where the row is just these.

    `slots` holds the place of each asked feature in a row, or None for one that the schema does not have; then the
    layout `is_partial` and `pick` is of no use.
    """

    decode: Callable[[bytes], tuple[StoredValue, ...]]
    slots: tuple[int | None, ...]
    pick: Pick | None
    is_partial: bool


@dataclass(frozen=True, slots=True)
class GroupRead:
    """One key per entity: its prefix, the join keys by place in `Plan.keys`, and what to take out of the row.

    `outputs` gives, for each feature taken, its place in the row that is read, `present` the statuses when none
    is null.
    """

    prefix: bytes
    key_places: tuple[int, ...]
    ttl_us: int | None
    outputs: tuple[int, ...]
    present: tuple[ReadStatus, ...]
    layouts: dict[int, Layout]


@dataclass(frozen=True, slots=True)
class ComputedRead:
    """What is computed on request for one group: from the stored features at `stored_places` of the row that is read.

    `outputs` has each asked feature with its place in the vector.
    """

    computation: Computation
    stored_places: tuple[int, ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read one feature list: `features` in the order asked, `keys` every join key that is needed.

    is_plain_json: whether JSON has the values as they are stored, as it has no timestamps and embeddings.
    key_names: the names of `keys`.
    arrange: brings a row whose values are in the order of `groups` into that of `features`; None where it is there.
    group_names, personal: what the caller's rights are compared with; `personal` names features that need `pii:read`.
    width: the values of a row that is read: the features asked for, with holes where one is computed on request, then
    the stored features that only these read.
    computed: how the holes are filled, from the `request_inputs`; for most plans there are none of either.
    """

    features: tuple[FeatureSnapshot, ...]
    feature_names: tuple[str, ...]
    is_plain_json: bool
    keys: tuple[Field, ...]
    key_names: frozenset[str]
    groups: tuple[GroupRead, ...]
    arrange: Pick | None
    deprecated: tuple[FeatureSnapshot, ...]
    group_names: frozenset[str]
    personal: tuple[str, ...]
    width: int
    request_inputs: tuple[Field, ...] = ()
    computed: tuple[ComputedRead, ...] = ()


def remembered(asked: Hashable, catalog: Catalog, choose: Callable[[Catalog], Sequence[FeatureSnapshot]]) -> Plan:
    """The plan of the features that `choose` finds in the catalog; found again by `asked`, without choosing again."""
    plan = catalog.plans.get(asked)
    if plan is None:
        plan = plan_for(choose(catalog), catalog)
        if len(catalog.plans) >= REMEMBERED_AT_MOST:
            catalog.plans.clear()
        catalog.plans[asked] = plan
    assert isinstance(plan, Plan)  # noqa: S101  nothing else is kept there
    return plan


def plan_for(features: Sequence[FeatureSnapshot], catalog: Catalog) -> Plan:
    """The plan of a feature list; raises FeatureNotActive or FeatureArchived when one of it is not served.

    Raises OnlineStoreCold when rows of one of its groups may be missing online, since its offline table is damaged.
    """
    require_servable(features)
    names = list(dict.fromkeys(feature.group for feature in features))
    for damaged in (catalog.groups[name] for name in names if catalog.groups[name].damage):
        raise OnlineStoreCold(
            f"Rows of {damaged.name} may be missing online: its offline table is damaged ({damaged.damage})."
        )
    keys = _join_keys([catalog.groups[name] for name in names], catalog)
    places = {key.name: place for place, key in enumerate(keys)}
    asked = {name: [feature.name for feature in features if feature.group == name] for name in names}
    computations = [c for name in names if (c := catalog.groups[name].computation(asked[name]))]
    read = [*features, *_only_read_by(computations, features, catalog)]
    stored = dict.fromkeys(feature.group for feature in read if not feature.on_request)
    groups = tuple(_group_read(catalog.groups[name], read, catalog, places) for name in stored)
    return Plan(
        tuple(features),
        tuple(feature.full_name for feature in features),
        not any(feature.dtype.kind in ("timestamp", "embedding") for feature in features),
        keys,
        frozenset(places),
        groups,
        _arrangement([place for group in groups for place in group.outputs]),
        tuple(dict.fromkeys(feature for feature in features if feature.status == Status.DEPRECATED)),
        frozenset(names),
        tuple(dict.fromkeys(feature.full_name for feature in features if feature.is_personal)),
        len(read),
        _request_inputs(computations),
        tuple(_computed_read(computation, read) for computation in computations),
    )


def _only_read_by(
    computations: Sequence[Computation], features: Sequence[FeatureSnapshot], catalog: Catalog
) -> list[FeatureSnapshot]:
    """The stored features that are needed and not asked for."""
    needed = [catalog.groups[one.group].features[field.name] for one in computations for field in one.stored]
    return [feature for feature in needed if feature not in features]


def _request_inputs(computations: Sequence[Computation]) -> tuple[Field, ...]:
    """What a request has to bring; groups that name the same get the same column."""
    inputs: dict[str, Field] = {}
    for computation in computations:
        for field in computation.request_inputs:
            if (other := inputs.setdefault(field.name, field)) != field:
                raise InvalidInput(
                    f"The asked groups differ on the type of the request input {field.name}: {other.dtype} and "
                    f"{field.dtype}; ask for their features one after the other."
                )
    return tuple(inputs.values())


def _computed_read(computation: Computation, read: Sequence[FeatureSnapshot]) -> ComputedRead:
    of_group = [(feature.name, place) for place, feature in enumerate(read) if feature.group == computation.group]
    places = dict(of_group)
    return ComputedRead(
        computation,
        tuple(places[field.name] for field in computation.stored),
        tuple((name, place) for name, place in of_group if read[place].on_request),
    )


def _join_keys(groups: Sequence[GroupSnapshot], catalog: Catalog) -> tuple[Field, ...]:
    keys: dict[str, Field] = {}
    for group in groups:
        for key in catalog.entities[group.entity]:
            if keys.setdefault(key.name, key) != key:
                raise InvalidInput(f"The asked groups differ on the type of the join key {key.name}.")
    return tuple(keys.values())


def _group_read(
    group: GroupSnapshot, features: Sequence[FeatureSnapshot], catalog: Catalog, places: dict[str, int]
) -> GroupRead:
    outputs = tuple(
        place for place, feature in enumerate(features) if feature.group == group.name and not feature.on_request
    )
    names = [features[place].name for place in outputs]
    return GroupRead(
        stores.online().row_prefix(group.name, group.version),
        tuple(places[key.name] for key in catalog.entities[group.entity]),
        None if group.ttl is None else round(group.ttl.total_seconds() * 1_000_000),
        outputs,
        tuple(PRESENT for _ in outputs),
        {number: _layout(names, stored, group) for number, stored in group.layouts.items()},
    )


def _arrangement(outputs: list[int]) -> Pick | None:
    """What puts the values of these places in order."""
    order = sorted(range(len(outputs)), key=outputs.__getitem__)
    return None if order == list(range(len(outputs))) else _picker(order)


def _layout(names: Sequence[str], stored: tuple[str, ...], group: GroupSnapshot) -> Layout:
    places = {name: place for place, name in enumerate(stored)}
    slots = tuple(places.get(name) for name in names)
    kinds = tuple(group.features[name].dtype.kind if name in group.features else None for name in stored)
    whole = [slot for slot in slots if slot is not None]
    is_just_these = whole == list(range(len(stored)))
    return Layout(body_decoder(kinds), slots, None if is_just_these else _picker(whole), len(whole) < len(slots))


def _picker(slots: list[int]) -> Pick | None:
    if len(slots) == 1:
        only = slots[0]
        return lambda values: (values[only],)
    return itemgetter(*slots) if slots else None
