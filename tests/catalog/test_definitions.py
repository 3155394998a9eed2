"""Definitions as code: what a file may say, what it changes, and that the same file changes nothing twice."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django_celery_beat.models import CrontabSchedule, PeriodicTask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import definitions, lifecycle, schemas
from catalog.definitions.durations import read_duration, written_duration
from catalog.definitions.exporting import written_yaml
from catalog.definitions.planning import Plan
from catalog.definitions.reading import read
from catalog.models import (
    CatalogState,
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    JoinKey,
    Owner,
    ServiceFeature,
    Tag,
)
from engine.errors import InvalidDefinition, StillRead

SHOP = """\
owners:
  - {name: growth, email: growth@example.com}
entities:
  - name: customer
    description: A person who bought at least once.
    join_keys: [{name: customer_id, dtype: string}]
    owner: growth
feature_groups:
  - name: customer_purchases
    entity: customer
    description: Running totals after each purchase.
    owner: growth
    tags: [purchases]
    status: active
    ttl: 90d
    freshness: 1d
    event_timestamp: purchased_at
    created_timestamp: null
    inputs:
      - {name: total_spent, dtype: float64}
    features:
      - name: total_purchases
        description: Purchases so far.
        dtype: int64
        type: numerical
        validation: {not_null: true, min_value: 0}
      - name: avg_purchase_value
        dtype: float64
        transformation: {expression: "CASE WHEN total_purchases > 0 THEN total_spent / total_purchases ELSE 0 END"}
      - name: customer_segment
        dtype: string
        validation: {allowed_values: [bronze, silver, gold, platinum], on_violation: quarantine}
    source: {kind: file, path: cdnow/customer_purchases.parquet}
    schedule: {every: 1h}
feature_services:
  - name: churn_v1
    version: 1
    features: [customer_purchases:total_purchases, customer_purchases:avg_purchase_value]
"""

pytestmark = [pytest.mark.django_db, pytest.mark.database]

WriteFile = Callable[..., str]


@pytest.fixture
def shop(tmp_path: Path) -> WriteFile:
    """Writes the shop's file, each (old, new) replaced, and returns its path."""

    def write(*replacements: tuple[str, str], text: str = SHOP, name: str = "shop.yaml") -> str:
        for old, new in replacements:
            assert old in text, f"{old} is not in the file"
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def applied(shop: WriteFile) -> str:
    """The shop's file, applied."""
    file = shop()
    definitions.apply([file])
    return file


def lines(plan: Plan) -> list[str]:
    return [f"{change.sign} {change.kind} {change.name}" for change in plan.changes]


def problems(file: str, *more: str) -> list[str]:
    """What planning the files finds wrong, without the folder; and applying finds the same and applies nothing."""
    before = CatalogState.current().version, history_rows()
    with pytest.raises(InvalidDefinition) as planned:
        definitions.plan([file, *more])
    with pytest.raises(InvalidDefinition) as refused:
        definitions.apply([file, *more])
    assert str(planned.value) == str(refused.value)
    assert (CatalogState.current().version, history_rows()) == before
    return [str(problem).removeprefix(str(Path(file).parent) + "/") for problem in planned.value.problems]


def history_rows() -> int:
    models = (Owner, Entity, JoinKey, FeatureGroup, Feature, FeatureService, ServiceFeature, DataSource)
    return sum(model.history.count() for model in models)


def feature(name: str) -> Feature:
    return Feature.objects.get(name=name)


# --- apply


def test_the_documented_file_becomes_the_catalog(applied: str) -> None:
    group = FeatureGroup.objects.get()
    assert (group.entity.name, group.owner and group.owner.email) == ("customer", "growth@example.com")
    assert (group.ttl, group.freshness, group.status) == (timedelta(days=90), timedelta(days=1), "active")
    assert (group.event_timestamp, group.created_timestamp) == ("purchased_at", "")
    assert [tag.name for tag in group.tags.all()] == ["purchases"]
    assert [(f.name, f.dtype, f.type, f.position) for f in group.features.all()] == [
        ("total_purchases", "int64", "numerical", 0),
        ("avg_purchase_value", "float64", "numerical", 1),
        ("customer_segment", "string", "categorical", 2),
    ]
    assert feature("total_purchases").validation == {"not_null": True, "min_value": 0}
    assert [(i.name, i.dtype) for i in group.inputs.all()] == [("total_spent", "float64")]
    assert [(s.name, s.path) for s in DataSource.objects.filter(group=group)] == [
        ("customer_purchases", "cdnow/customer_purchases.parquet")
    ]
    service = FeatureService.objects.get()
    assert (str(service), service.status) == ("churn_v1@1", "active")
    assert service.feature_names() == ["customer_purchases:total_purchases", "customer_purchases:avg_purchase_value"]
    assert schemas.problems_of(schemas.schema_of(group)) == []


def test_a_second_apply_leaves_no_history_and_keeps_the_catalog_version(applied: str) -> None:
    before = history_rows(), CatalogState.current().version, group_times()
    assert definitions.apply([applied]).changes == ()
    assert (history_rows(), CatalogState.current().version, group_times()) == before


def group_times() -> list[datetime]:
    return list(FeatureGroup.objects.values_list("updated_at", flat=True))


def test_a_plan_names_the_object_the_field_and_both_values(applied: str, shop: WriteFile) -> None:
    plan = definitions.plan([shop(("ttl: 90d", "ttl: 48h"), ("Purchases so far.", "All purchases."))])
    assert lines(plan) == ["~ feature group customer_purchases", "~ feature customer_purchases:total_purchases"]
    group, purchases = plan.changes
    assert [str(field) for field in group.fields] == ["ttl: 90d -> 2d"]
    assert group.effects == ("read by churn_v1@1",)
    assert [str(field) for field in purchases.fields] == ["description: Purchases so far. -> All purchases."]
    assert purchases.effects == ()


def test_only_what_differs_is_written(applied: str, shop: WriteFile) -> None:
    before = history_rows(), CatalogState.current().version
    definitions.apply([shop(("Purchases so far.", "All purchases."))], by="nobody")
    assert (history_rows(), CatalogState.current().version) == (before[0] + 1, before[1])
    newest = Feature.history.first()
    assert newest is not None
    noted = (newest.description, newest.history_change_reason, newest.history_user)
    assert noted == ("All purchases.", "apply by nobody", None)


def test_the_history_names_the_user_who_applied(shop: WriteFile) -> None:
    ada = get_user_model().objects.create_user("ada")
    definitions.apply([shop()], by="ada")
    for model in (Owner, Entity, JoinKey, FeatureGroup, Feature, FeatureService, ServiceFeature, DataSource):
        assert set(model.history.values_list("history_user", "history_change_reason")) == {(ada.pk, "apply")}


def test_what_the_files_do_not_name_stays(applied: str, shop: WriteFile) -> None:
    other = "owners: [{name: risk}]\nentities: [{name: card, join_keys: [{name: card_id, dtype: int64}]}]\n"
    plan = definitions.apply([shop(text=other, name="cards.yaml")])
    assert lines(plan) == ["+ owner risk", "+ entity card"]
    assert FeatureGroup.objects.get().features.count() == 3


def test_several_files_are_one_document_in_any_order(shop: WriteFile) -> None:
    head, tail = SHOP.split("feature_groups:")
    files = [shop(text="feature_groups:" + tail, name="groups.yaml"), shop(text=head, name="entities.yaml")]
    definitions.apply(files)
    assert definitions.plan([shop()]).changes == ()


def test_an_absent_key_is_its_default_but_an_absent_status_is_the_catalogs(applied: str, shop: WriteFile) -> None:
    value = feature("avg_purchase_value")
    lifecycle.change_status(value, "deprecated", reason="worse", replaced_by=feature("total_purchases"))
    plan = definitions.apply([shop(("    ttl: 90d\n", ""), ("    status: active\n", ""))])
    assert [str(field) for change in plan.changes for field in change.fields] == ["ttl: 90d -> (default)"]
    group, value = FeatureGroup.objects.get(), feature("avg_purchase_value")
    assert (group.ttl, group.status) == (None, "active")
    assert (value.status, str(value.replaced_by)) == ("deprecated", "customer_purchases:total_purchases")


def test_features_take_the_order_of_the_file(applied: str, shop: WriteFile) -> None:
    """Old a, b, c; new c', a, b, c with c' before the rest."""
    new = "    features:\n      - {name: days_since, dtype: int64}\n"
    plan = definitions.apply([shop(("    features:\n", new))])
    assert lines(plan) == ["+ feature customer_purchases:days_since"]
    order = [f.name for f in FeatureGroup.objects.get().features.all()]
    assert order == ["days_since", "total_purchases", "avg_purchase_value", "customer_segment"]
    assert definitions.plan([shop(("    features:\n", new))]).changes == ()


def test_tags_inputs_and_members_follow_the_file(applied: str, shop: WriteFile) -> None:
    get_user_model().objects.create_user("ada")
    file = shop(
        ("tags: [purchases]", "tags: [money, sales]"),
        (
            "- {name: total_spent, dtype: float64}",
            "- {name: refunds, dtype: int64}\n      - {name: total_spent, dtype: float64}",
        ),
        ("email: growth@example.com}", "email: growth@example.com, members: [ada]}"),
    )
    definitions.apply([file])
    group = FeatureGroup.objects.get()
    assert [tag.name for tag in group.tags.all()] == ["money", "sales"]
    assert [column.name for column in group.inputs.all()] == ["refunds", "total_spent"]
    assert [user.username for user in Owner.objects.get().members.all()] == ["ada"]
    assert Tag.objects.count() == 3
    assert definitions.plan([file]).changes == ()


def test_a_schedule_is_a_periodic_task_that_comes_changes_and_goes(applied: str, shop: WriteFile) -> None:
    task = PeriodicTask.objects.get()
    assert (task.name, task.task) == ("ingest customer_purchases", "ingestion.tasks.ingest_scheduled")
    assert json.loads(task.kwargs) == {"group": "customer_purchases"}
    assert (task.interval.every, task.interval.period) == (3600, "seconds")

    nightly = shop(("schedule: {every: 1h}", 'schedule: {cron: "5 */6 * * 1-5"}'))
    definitions.apply([nightly])
    crontab = PeriodicTask.objects.get(pk=task.pk).crontab
    assert (crontab.minute, crontab.hour, crontab.day_of_week, str(crontab.timezone)) == ("5", "*/6", "1-5", "UTC")
    assert definitions.plan([nightly]).changes == ()

    definitions.apply([shop(("    schedule: {every: 1h}\n", ""))])
    assert not PeriodicTask.objects.exists()
    assert FeatureGroup.objects.get().schedule is None


def test_a_source_changes_its_path_in_place(applied: str, shop: WriteFile) -> None:
    definitions.apply([shop(("cdnow/customer_purchases.parquet", "cdnow/*.csv"))])
    assert [(source.name, source.path) for source in DataSource.objects.all()] == [
        ("customer_purchases", "cdnow/*.csv")
    ]


# --- leaving out, status, versions


WITHOUT_SEGMENT = (
    SHOP[SHOP.index("      - name: customer_segment") : SHOP.index("    source:")],
    "",
)


def test_a_feature_left_out_is_refused_and_pruning_archives_it(applied: str, shop: WriteFile) -> None:
    file = shop(WITHOUT_SEGMENT)
    plan = definitions.plan([file])
    assert lines(plan) == ["- feature customer_purchases:customer_segment"]
    assert plan.changes[0].effects == ("apply --prune archives it",)
    with pytest.raises(InvalidDefinition, match=r"shop.yaml:21 .*features: customer_purchases:customer_segment is in"):
        definitions.apply([file])
    definitions.apply([file], prune=True)
    assert feature("customer_segment").status == "archived"
    assert definitions.plan([file]).changes == ()


def test_pruning_what_a_service_reads_is_refused_and_changes_nothing(applied: str, shop: WriteFile) -> None:
    without_value = (
        SHOP[SHOP.index("      - name: avg_purchase_value") : SHOP.index("      - name: customer_segment")],
        "",
    )
    file = shop(without_value, ("ttl: 90d", "ttl: 1d"), ("feature_services:", "x:"), text=SHOP)
    text = Path(file).read_text()
    file = shop(text=text[: text.index("x:")])
    assert definitions.plan([file]).changes[-1].effects == ("cannot be archived: read by churn_v1@1",)
    with pytest.raises(StillRead, match="churn_v1@1"):
        definitions.apply([file], prune=True)
    assert FeatureGroup.objects.get().ttl == timedelta(days=90)


def test_a_deprecation_in_the_file_goes_through_the_lifecycle(applied: str, shop: WriteFile) -> None:
    deprecated = (
        "dtype: string\n",
        "dtype: string\n        status: deprecated\n        deprecation_reason: nobody reads it\n"
        "        replaced_by: customer_purchases:total_purchases\n        sunset: 2030-01-31T00:00:00Z\n",
    )
    file = shop(
        ("join_keys: [{name: customer_id, dtype: string}]\n", "join_keys: [{name: customer_id, dtype: string}]\n"),
        deprecated,
    )
    definitions.apply([file])
    segment = feature("customer_segment")
    assert (segment.status, segment.deprecation_reason) == ("deprecated", "nobody reads it")
    assert (str(segment.replaced_by), segment.sunset_at) == (
        "customer_purchases:total_purchases",
        datetime(2030, 1, 31, tzinfo=UTC),
    )
    assert segment.deprecated_at is not None
    assert definitions.plan([file]).changes == ()

    sooner = shop(deprecated, ("        sunset: 2030-01-31T00:00:00Z\n", ""))
    definitions.apply([sooner])
    assert feature("customer_segment").sunset_at is None


def test_a_group_and_its_only_service_are_archived_together(applied: str, shop: WriteFile) -> None:
    archived = ("status: active", "status: archived")
    assert problems(shop(archived)) == [
        "shop.yaml:14 feature_groups[0].status: customer_purchases cannot be archived: it is read by churn_v1@1"
    ]
    definitions.apply([shop(archived, ("    version: 1\n", "    version: 1\n    status: archived\n"))])
    assert {FeatureGroup.objects.get().status, FeatureService.objects.get().status} == {"archived"}


def test_a_status_change_that_the_lifecycle_refuses_is_a_problem(applied: str, shop: WriteFile) -> None:
    assert problems(shop(("status: active", "status: draft"))) == [
        "shop.yaml:14 feature_groups[0].status: the feature group customer_purchases is active; "
        "it can become archived, deprecated, not draft"
    ]


def test_a_changed_list_needs_a_raised_service_version(applied: str, shop: WriteFile) -> None:
    shorter = (", customer_purchases:avg_purchase_value]", "]")
    assert problems(shop(shorter)) == [
        "shop.yaml:38 feature_services[0].features: the list of churn_v1@1 is fixed; another one needs version: 2"
    ]
    plan = definitions.apply([shop(shorter, ("version: 1", "version: 2"))])
    assert lines(plan) == ["+ feature service churn_v1@2"]
    assert plan.changes[0].effects == ("since churn_v1@1: - customer_purchases:avg_purchase_value",)
    older, changes = FeatureService.objects.get(version=2).changes_since() or (None, [])
    assert (str(older), changes) == ("churn_v1@1", ["- customer_purchases:avg_purchase_value"])
    assert sorted(map(str, FeatureService.objects.all())) == ["churn_v1@1", "churn_v1@2"]


def test_a_changed_meaning_of_stored_rows_needs_a_raised_group_version(applied: str, shop: WriteFile) -> None:
    schemas.current_schema(FeatureGroup.objects.get())
    changed = ("ELSE 0 END", "ELSE 1 END")
    assert problems(shop(changed)) == [
        "shop.yaml:9 feature_groups[0]: customer_purchases has stored rows and avg_purchase_value has another "
        "transformation: that needs version: 2"
    ]
    plan = definitions.apply([shop(changed, ("    entity: customer\n", "    entity: customer\n    version: 2\n"))])
    assert plan.changes[0].effects == ("version 1 -> 2: serves nothing until it is ingested", "read by churn_v1@1")
    assert FeatureGroup.objects.get().version == 2
    assert "customer_purchases has version 2 already" in problems(shop(changed))[0]


def test_changed_join_keys_name_every_group_with_rows(applied: str, shop: WriteFile) -> None:
    """Also a group that the files do not name."""
    schemas.current_schema(FeatureGroup.objects.get())
    file = shop(text=SHOP[: SHOP.index("feature_groups:")].replace("dtype: string", "dtype: int64"))
    assert problems(file) == [
        "shop.yaml:6 entities[0].join_keys: customer_purchases has stored rows and its join keys changed: "
        "that needs version: 2"
    ]


def test_a_new_feature_tells_what_rows_written_so_far_answer(applied: str, shop: WriteFile) -> None:
    schemas.current_schema(FeatureGroup.objects.get())
    plan = definitions.plan([shop(("    source:", "      - {name: visits, dtype: int64}\n    source:"))])
    assert plan.changes[0].effects == ("schema 2: rows written so far answer NOT_FOUND for visits until backfilled",)


# --- problems


def test_every_problem_is_listed_with_its_place(shop: WriteFile) -> None:
    broken = shop(
        ("    owner: growth\nfeature_groups", "    owner: grwth\nfeature_groups"),
        ("    freshness: 1d\n", "    freshnes: 1d\n"),
        ("dtype: int64\n", "dtype: integer\n"),
        ("type: numerical", "type: numeric"),
        (
            "      - name: customer_segment\n        dtype: string\n",
            "      - name: total_spent\n        dtype: string\n",
        ),
        (
            "    source:",
            "      - {name: a, dtype: int64, transformation: {expression: b + 1}}\n"
            "      - {name: b, dtype: int64, transformation: {expression: a + 1}}\n"
            "      - {name: c, dtype: float64, transformation: {expression: totl_spent * 2}}\n"
            "      - {name: d, dtype: int64, transformation: {expression: UPPER(a)}}\n"
            "      - {name: e, dtype: int64, validation: {min_value: 2, max_value: 1}}\n"
            "    source:",
        ),
        ("schedule: {every: 1h}", "schedule: {every: 1 hour}"),
        ("features: [customer_purchases:total_purchases", "features: [customer_purchases:d, customer_purchases:d"),
        ("  - name: churn_v1\n", "  - name: churn_v1\n    features: []\n"),
    )
    found = problems(broken)
    expected = [
        ("shop.yaml:7 entities[0].owner", "there is no owner named 'grwth'. Did you mean growth?"),
        ("shop.yaml:16 feature_groups[0].freshnes", "unknown key. Did you mean freshness"),
        ("shop.yaml:24 feature_groups[0].features[0].dtype", "'integer' is not a dtype"),
        ("shop.yaml:25 feature_groups[0].features[0].type", "'numeric' is not one of"),
        ("shop.yaml:30 feature_groups[0].features[2].name", "taken"),
        ("shop.yaml:33 feature_groups[0].features[3].transformation", "a -> b -> a"),
        ("shop.yaml:35 feature_groups[0].features[5].transformation", "Did you mean total_spent"),
        ("shop.yaml:36 feature_groups[0].features[6].transformation", "string is needed"),
        ("shop.yaml:37 feature_groups[0].features[7].validation", "min_value"),
        ("shop.yaml:39 feature_groups[0].schedule.every", "'1 hour' is not a duration"),
        ("shop.yaml:42 feature_services[0].features", "at least one"),
        ("shop.yaml:44 feature_services[0].features", "the key stands twice; first in line 42"),
    ]
    for line, (place, words) in zip(found, expected, strict=False):
        assert line.startswith(f"{place}: ")
        assert words in line
    assert len(found) == len(expected), "what only follows from a problem is not one of its own"


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("name: growth,", "name: Growth,", "owners[0].name", "'Growth' is not a name"),
        ("name: total_purchases", "name: event_timestamp", "", "event_timestamp is a column that every stored row has"),
        ("growth@example.com", "growth", "owners[0].email", "'growth' is not an e-mail address"),
        ("email: growth", "members: [bob], email: growth", "owners[0].members[0]", "there is no user named 'bob'"),
        ("entity: customer\n", "entity: custmer\n", "entity", "Did you mean customer?"),
        ("[customer_purchases:total_purchases,", "[customer_purchases:total,", "features[0]", "there is no feature"),
        (
            "[customer_purchases:total_purchases,",
            "[total_purchases,",
            "features[0]",
            "is not a feature; one is written",
        ),
        ("dtype: string}]", "dtype: float64}]", "join_keys[0].dtype", "not one of int64, string"),
        ("dtype: string}]", "dtype: string}, {name: customer_id, dtype: string}]", "join_keys[1]", "stands twice"),
        ("ttl: 90d", "ttl: 0d", "ttl", "above 0 and at most 36500d"),
        ("ttl: 90d", "ttl: 90", "ttl", "90 is not a duration"),
        ("{every: 1h}", "{every: 1h, cron: 0 * * * *}", "schedule", "exactly one of every and cron"),
        ("{every: 1h}", "{cron: 0 25 * * *}", "schedule.cron", "is not a cron line"),
        ("{every: 1h}", "[1h]", "schedule", "a mapping of keys is expected, not ['1h']"),
        ("kind: file", "kind: ftp", "source.kind", "'file'"),
        ("min_value: 0}", "min_value: .nan}", "validation.min_value", "a finite number is expected"),
        ("min_value: 0}", "min_value: 1e6}", "validation.min_value", "not '1e6' (a float has a point"),
        ("min_value: 0}", "regex: a+}", "validation", "regex"),
        ("not_null: true", "not_null: 1", "validation.not_null", "true or false is expected, not 1"),
        ("Purchases so far.", "[a]", "description", "text is expected, not ['a']; quote it"),
        (
            "name: customer_segment\n",
            "status: actve\n        name: customer_segment\n",
            "status",
            "Did you mean active?",
        ),
        ("dtype: int64\n", "dtype: int64\n        sunset: 2030-01-01T00:00:00Z\n", "sunset", "status: deprecated"),
        ("dtype: int64\n", "dtype: int64\n        sunset: 2030-01-01\n", "sunset", "a time with an offset is expected"),
        ('{expression: "', '{function: os.system, expression: "', "transformation", "exactly one of expression"),
        ('{expression: "', '{local: "', "transformation.local", "registered by its own process"),
        ("version: 1", "version: 0", "version", "greater than or equal to 1"),
        ("version: 1", "version: !!int x", "version", "'x' cannot be read"),
        ("version: 1", "version: !!python/name:os.system x", "version", "cannot be read"),
        ("  - name: churn_v1\n", "  - <<: {name: churn_v1}\n", "<<", "unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(shop: WriteFile, old: str, new: str, place: str, words: str) -> None:
    found = problems(shop((old, new)))
    assert [line for line in found if place in line.split(": ")[0] and words in line], found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x]\nb: [*a, *a]", "line 1: anchors and aliases are refused"),
        ("[" * 5000 + "]" * 5000, "line 1: nested deeper than 12 levels"),
        ("owners: [", "not YAML"),
        ("owners: []\n---\nowners: []", "not YAML"),
        ("- a", "a mapping of owners, entities"),
        ("owners: !!set {a}", "the tag tag:yaml.org,2002:set is refused"),
        ("? [a]\n: b", "unknown key"),
        ("owner: []", "unknown key. Did you mean owners?"),
        ("owners: [\x00]", "not YAML"),
        ("#" * 5_000_001, "larger than 5 MB"),
    ],
    ids=range(10),
)
def test_a_file_that_plays_tricks_is_refused(shop: WriteFile, text: str, words: str) -> None:
    assert any(words in line for line in problems(shop(text=text)))


def test_a_file_that_is_not_there_or_not_utf8_is_named(tmp_path: Path, shop: WriteFile) -> None:
    (tmp_path / "latin.yaml").write_bytes("owners: [é]".encode("latin-1"))
    found = problems(
        str(tmp_path / "latin.yaml"), str(tmp_path / "none.yaml"), shop(("name: growth,", "name: growth, x: 1,"))
    )
    assert ["'utf-8' codec" in found[0], "none.yaml: No such file" in found[1], "x: unknown key" in found[2]] == [
        True
    ] * 3


def test_the_same_name_in_two_files_is_a_problem(shop: WriteFile) -> None:
    second = shop(text="owners:\n  - {name: growth}\n", name="second.yaml")
    assert "second.yaml:2 owners[0].name: the owner growth is defined twice" in problems(shop(), second)[-1]


# --- export


def everything(shop: WriteFile) -> None:
    """A catalog with all that a file can say."""
    get_user_model().objects.create_user("ada")
    file = shop(
        ("email: growth@example.com}", "email: growth@example.com, members: [ada]}"),
        (
            "    source:",
            "      - {name: big, dtype: embedding(3), type: text, tags: [b, a], owner: growth}\n    source:",
        ),
        ("{every: 1h}", "{cron: 0 */2 * * 1}"),
        ("parquet}", "parquet, name: purchases}"),
    )
    definitions.apply([file])
    lifecycle.change_status(
        feature("customer_segment"),
        "deprecated",
        reason="so: many\nlines",
        replaced_by=feature("total_purchases"),
        sunset=datetime(2030, 1, 31, 12, 30, 15, 250_000, tzinfo=UTC),
    )
    lifecycle.change_status(feature("big"), "archived")
    Feature.objects.filter(name="total_purchases").update(expression="", local="shop.total (lambda)", position=7)


def test_an_export_plans_without_difference(shop: WriteFile) -> None:
    everything(shop)
    assert definitions.plan([shop(text=definitions.export(), name="exported.yaml")]).changes == ()


def test_an_export_makes_the_same_catalog_elsewhere(shop: WriteFile) -> None:
    everything(shop)
    Feature.objects.filter(name="total_purchases").update(local="")
    exported = definitions.export()
    FeatureService.objects.all().delete()
    Feature.objects.update(replaced_by=None)
    for model in (FeatureGroup, Entity, Owner, DataSource, PeriodicTask):
        model.objects.all().delete()
    definitions.apply([shop(text=exported, name="exported.yaml")])
    assert definitions.export() == exported


def test_an_export_reads_as_a_person_would_write_it(applied: str) -> None:
    exported = definitions.export()
    for line in [
        "- {name: growth, email: growth@example.com}",
        "  - {name: customer_id, dtype: string}",
        "  tags: [purchases]",
        "  ttl: 90d",
        "    validation: {not_null: true, min_value: 0}",
        "  schedule: {every: 1h}",
        "- name: churn_v1",
    ]:
        assert line in exported.splitlines()


STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(description=STORABLE, allowed=st.lists(STORABLE | st.integers() | st.booleans(), max_size=3))
def test_any_text_survives_being_written(tmp_path: Path, description: str, allowed: list[object]) -> None:
    feature = {"name": "f", "dtype": "string", "validation": {"allowed_values": allowed}}
    group = {"name": "g", "entity": "e", "description": description, "features": [feature]}
    (tmp_path / "written.yaml").write_text(written_yaml({"feature_groups": [group]}))
    reading = read([tmp_path / "written.yaml"])
    assert reading.problems == []
    [read_group] = reading.document.feature_groups
    assert read_group.description == description
    assert repr(list(read_group.features[0].validation.allowed_values or ())) == repr(allowed)


@given(microseconds=st.integers(1, 36_500 * 86_400_000_000))
def test_any_duration_survives_being_written(microseconds: int) -> None:
    duration = timedelta(microseconds=microseconds)
    assert read_duration(written_duration(duration)) == duration


def test_what_no_file_can_say_about_a_schedule_is_left_alone(applied: str, shop: WriteFile) -> None:
    task = PeriodicTask.objects.get()
    task.crontab = task.crontab or CrontabSchedule.objects.create(hour="3", timezone="Europe/Berlin")
    task.interval = None
    task.save()
    definitions.apply([shop(("    schedule: {every: 1h}\n", ""))])
    assert PeriodicTask.objects.get().crontab == task.crontab
    PeriodicTask.objects.update(name="by hand")
    definitions.apply([shop()])
    assert [(t.name, t.interval.every, t.crontab) for t in PeriodicTask.objects.all()] == [("by hand", 3600, None)]


# --- commands


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = 0
    try:
        call_command(*arguments)
    except SystemExit as stopped:
        code = int(str(stopped.code))
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_commands_apply_export_and_plan_from_standard_input(
    shop: WriteFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run_command(capsys, "apply", shop())
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "+ owner growth", "+ feature service churn_v1@1")
    code, exported, _ = run_command(capsys, "export")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(exported.encode())))
    assert (code, run_command(capsys, "plan", "-")) == (0, (0, "No difference.\n", ""))
    code, out, _ = run_command(capsys, "plan", shop(("ttl: 90d", "ttl: 1d")), "--json")
    [change] = json.loads(out)["changes"]
    assert change["fields"] == [{"field": "ttl", "old": "90d", "new": "1d"}]
    assert json.loads(run_command(capsys, "export", "--json")[1])["owners"][0]["name"] == "growth"


def test_a_refused_command_exits_1_with_every_problem_on_stderr(
    shop: WriteFile, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shop(("ttl: 90d", "ttl: x"), ("kind: file", "kind: ftp"))
    for command in ("plan", "apply"):
        code, out, err = run_command(capsys, command, file)
        assert (code, out, len(err.splitlines())) == (1, "", 3)
        assert err.startswith("The definitions have 2 problems; nothing was applied.")
    code, out, _ = run_command(capsys, "plan", file, "--json")
    assert (code, len(json.loads(out)["errors"])) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_applies_that_meet_all_arrive(shop: WriteFile) -> None:
    def apply(number: int) -> None:
        text = f"owners: [{{name: team_{number}}}]\n"
        text += f"entities: [{{name: e{number}, join_keys: [{{name: k, dtype: int64}}]}}]"
        try:
            definitions.apply([shop(text=text, name=f"{number}.yaml")])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(apply, range(8)))
    assert (Owner.objects.count(), Entity.objects.count(), JoinKey.objects.count()) == (8, 8, 8)
