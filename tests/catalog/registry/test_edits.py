"""Things that are made and changed over HTTP: the same checks, effects and history as of `manage.py apply`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.catalog.registry.conftest import BASE, Asking, holder, person

pytestmark = [pytest.mark.django_db, pytest.mark.database]

FEATURE = {"group": "customer_purchases", "name": "days_active", "dtype": "int64", "description": "Days so far."}
TOTAL = "features/customer_purchases/total_purchases"
GROUP = "feature-groups/customer_purchases"


def catalog_now() -> dict[str, Any]:
    from catalog.definitions import exported

    return exported()


def histories() -> int:
    """How many rows all the histories of the catalog have."""
    from django.apps import apps

    of_catalog = apps.get_app_config("catalog").get_models()
    recorded = [model._default_manager for model in of_catalog if model.__name__.startswith("Historical")]
    assert len(recorded) > 8
    return sum(rows.count() for rows in recorded)


def newest(model: str, **which: Any) -> Any:
    """The newest row of a history."""
    from catalog import models

    return getattr(models, model).history.filter(**which).latest("history_id")


# -- Making


@pytest.mark.parametrize(
    ("kind", "body", "address"),
    [
        ("owners", {"name": "risk", "email": "risk@example.com"}, "owners/risk"),
        (
            "entities",
            {"name": "shop", "owner": "growth", "join_keys": [{"name": "shop_id", "dtype": "int64"}]},
            "entities/shop",
        ),
        (
            "feature-groups",
            {"name": "visits", "entity": "customer", "ttl": "90d", "status": "active", "tags": ["web"]}
            | {"features": [{"name": "pages", "dtype": "int64", "validation": {"min_value": 0}}]}
            | {"source": {"kind": "file", "path": "visits.csv"}, "schedule": {"every": "1h"}},
            "feature-groups/visits",
        ),
        ("features", FEATURE, "features/customer_purchases/days_active"),
        (
            "feature-services",
            {"name": "churn", "version": 2, "features": ["customer_purchases:avg_purchase_value", "support:tickets"]},
            "feature-services/churn@2",
        ),
        ("data-sources", {"group": "support", "kind": "file", "path": "tickets.csv"}, "data-sources/support"),
    ],
)
def test_what_is_made_is_shown_at_its_address_with_what_was_sent(
    ci: Asking, kind: str, body: dict[str, Any], address: str
) -> None:
    made = ci.post(f"{kind}/", body)
    assert made.status == 201, made.document
    assert made.headers["Location"] == f"{BASE}/{address}"
    for key, value in body.items():
        if key != "source":
            assert made.document[key] == value, key
    shown = ci.get(address)
    assert (shown.document, shown.etag) == (made.document, made.etag)
    assert made.document in ci.get(kind).document["results"]
    again = ci.post(f"{kind}/", body)
    assert (again.status, again.document["code"]) == (409, "conflict")


def test_a_thing_is_shown_with_every_key_of_its_definition(ci: Asking) -> None:
    from catalog.definitions import document

    shown = ci.get(TOTAL).document
    assert (
        document.Feature.model_fields.keys()
        | {"group", "effective_status", "deprecated_at", "created_at"}
        | {"updated_at"}
        == shown.keys()
    )
    assert shown["validation"] == {"not_null": True, "min_value": 0}
    assert (shown["status"], shown["effective_status"], shown["tags"], shown["owner"]) == (None, "active", [], None)
    group = ci.get(GROUP).document
    assert document.FeatureGroup.model_fields.keys() | {"deprecated_at", "created_at", "updated_at"} == group.keys()
    assert [feature["name"] for feature in group["features"]] == [
        *("total_purchases", "avg_purchase_value", "customer_segment")
    ]
    assert group["source"] == {"kind": "file", "path": "customer_purchases.csv", "name": "customer_purchases_files"}
    assert ci.get("owners/growth").document["members"] == []
    assert ci.get("entities/customer").document["join_keys"] == [{"name": "customer_id", "dtype": "string"}]


def test_a_service_without_a_version_in_the_address_is_its_highest_active_one(ci: Asking) -> None:
    assert ci.post("feature-services", {"name": "churn", "version": 2, "features": ["support:tickets"]}).status == 201
    draft = {"name": "churn", "version": 3, "status": "draft", "features": ["support:tickets"]}
    assert ci.post("feature-services", draft).status == 201
    assert ci.get("feature-services/churn").document["version"] == 2
    assert ci.get("feature-services/churn@1").document["version"] == 1
    assert ci.get("feature-services/churn@3").document["status"] == "draft"
    for name in ("churn@4", "churn@", "churn@x", "churn@1@1", "churn@99999999999999999999"):
        assert ci.get(f"feature-services/{name}").status == 404
    taken = ci.post("feature-services", {"name": "churn", "features": ["support:tickets"]})
    assert (taken.status, taken.problems) == (409, [("/version", "is taken")])
    assert "next version of churn is 4" in taken.document["detail"]


def test_a_name_that_is_not_there_is_answered_with_near_ones(ci: Asking) -> None:
    answer = ci.get("features/customer_purchases/total_purchase")
    assert answer.status == 404
    assert answer.document["errors"][0]["did_you_mean"][0] == "customer_purchases:total_purchases"
    for path in ("features/%00/a", "owners/%00", "feature-services/%00", "entities/" + "a" * 3000, "tags/%F0%9F%92%9C"):
        assert ci.get(path).status == 404
    hidden = holder("read", groups=["support"]).get("features/customer_purchases/total_purchase")
    assert (hidden.status, hidden.document["errors"]) == (404, [])


# -- What is wrong with a body is told by its place in it


@pytest.mark.parametrize(
    ("kind", "body", "pointer", "detail"),
    [
        ("features", FEATURE | {"dtype": "int46"}, "/dtype", "int46"),
        ("features", FEATURE | {"name": "Total"}, "/name", "is not a name"),
        ("features", FEATURE | {"name": None}, "/name", "text is expected"),
        ("features", {"group": "customer_purchases", "dtype": "int64"}, "/name", "is required"),
        ("features", {"name": "a", "dtype": "int64"}, "/group", "is required"),
        ("features", FEATURE | {"group": 7}, "/group", "no feature group"),
        ("features", FEATURE | {"group": "\0"}, "/group", "no feature group"),
        ("features", FEATURE | {"desciption": "x"}, "/desciption", "unknown key"),
        ("features", FEATURE | {"a/b~c": "x"}, "/a~1b~0c", "unknown key"),
        ("features", FEATURE | {"tags": ["ok", "not ok"]}, "/tags/1", "is not a name"),
        ("features", FEATURE | {"description": "\0"}, "/description", "U+0000"),
        ("features", FEATURE | {"owner": "growht"}, "/owner", "there is no owner"),
        ("features", FEATURE | {"validation": {"min_valeu": 1}}, "/validation/min_valeu", "unknown key"),
        ("features", FEATURE | {"validation": {"regex": "a"}}, "/validation", "regex"),
        (
            "features",
            FEATURE | {"validation": {"allowed_values": [1, [2]]}},
            "/validation/allowed_values/1",
            "expected",
        ),
        ("features", FEATURE | {"transformation": {"expression": "NOW()"}}, "/transformation", "NOW"),
        (
            "features",
            FEATURE | {"transformation": {"expression": "total_purchase + 1"}},
            "/transformation",
            "total_pur",
        ),
        ("features", FEATURE | {"transformation": {"local": "x"}}, "/transformation/local", "local"),
        ("features", FEATURE | {"transformation": {"function": "os.system"}}, "/transformation", "os"),
        ("features", FEATURE | {"sunset": "2030-01-01"}, "/sunset", "offset"),
        ("features", FEATURE | {"replaced_by": "support:tickets"}, "/replaced_by", "status: deprecated"),
        ("entities", {"name": "shop", "join_keys": []}, "/join_keys", "at least one"),
        (
            "entities",
            {"name": "shop", "join_keys": [{"name": "a", "dtype": "float64"}]},
            "/join_keys/0/dtype",
            "one of",
        ),
        (
            "feature-groups",
            {
                "name": "g",
                "entity": "customer",
                "features": [{"name": "a", "dtype": "int64"}, {"name": "b", "dtype": "?"}],
            },
            "/features/1/dtype",
            "?",
        ),
        ("feature-groups", {"name": "g", "entity": "custommer"}, "/entity", "there is no entity"),
        ("feature-groups", {"name": "g", "entity": "customer", "ttl": "9 days"}, "/ttl", "duration"),
        ("feature-services", {"name": "s", "features": ["support:ticket"]}, "/features/0", "there is no feature"),
        ("feature-services", {"name": "s", "version": 0, "features": ["support:tickets"]}, "/version", "greater"),
        ("data-sources", {"group": "support", "kind": "sql", "path": "a"}, "/kind", "file"),
        ("data-sources", {"group": "support", "kind": "file", "path": ""}, "/path", "at least"),
        ("owners", {"name": "risk", "members": ["nobody"]}, "/members/0", "there is no user"),
        ("owners", {"name": "risk", "email": "growth@example.com"}, "/email", "another owner"),
    ],
)
def test_what_is_wrong_with_a_body_is_told_by_a_pointer_into_it(
    ci: Asking, kind: str, body: dict[str, Any], pointer: str, detail: str
) -> None:
    before, rows = catalog_now(), histories()
    answer = ci.post(kind, body)
    assert (answer.status, answer.document["code"]) == (422, "invalid_definition"), answer.document
    assert [where for where, _ in answer.problems] == [pointer]
    assert detail in answer.problems[0][1]
    assert (catalog_now(), histories()) == (before, rows)


@pytest.mark.parametrize(
    "key", ["id", "pk", "is_superuser", "created_by", "created_at", "updated_at", "history", "group_id"]
)
def test_nobody_sets_what_is_no_key_of_a_definition(ci: Asking, key: str) -> None:
    for path in (
        TOTAL,
        GROUP,
        "owners/growth",
        "entities/customer",
        "feature-services/churn",
        "data-sources/customer_purchases_files",
    ):
        answer = ci.edit(path, {key: 1})
        assert (answer.status, [where for where, _ in answer.problems]) == (422, [f"/{key}"]), path


def test_what_is_like_a_wrong_name_is_offered(ci: Asking) -> None:
    for kind, body, near in [
        ("features", FEATURE | {"desciption": "x"}, "description"),
        ("features", FEATURE | {"owner": "growht"}, "growth"),
        ("features", FEATURE | {"group": "customer_purchase"}, "customer_purchases"),
        ("feature-services", {"name": "s", "features": ["support:ticket"]}, "support:tickets"),
    ]:
        assert ci.post(kind, body).document["errors"][0]["did_you_mean"] == [near]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"name": NaN}', 400),
        (b'{"name": "a", "name": "b"}', 400),
        (b"\xff", 400),
        (b'{"a":' * 5000, 400),
        (b'{"name":' + b"[" * 300 + b"]" * 300 + b"}", 422),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', 413),
        (b"{}", 422),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(ci: Asking, body: bytes, status: int) -> None:
    for kind in ("features", "entities", "feature-groups", "feature-services", "data-sources", "owners"):
        assert ci.post(kind, body).status == status, kind


# -- Changing


def test_a_change_has_to_say_what_it_is_a_change_of(ci: Asking) -> None:
    missing = ci.patch(TOTAL, {"description": "New."})
    assert (missing.status, missing.document["code"]) == (428, "if_match_missing")
    read = ci.get(TOTAL)
    done = ci.patch(TOTAL, {"description": "New."}, **{"If-Match": read.etag})
    assert (done.status, done.document["description"]) == (200, "New.")
    assert done.etag not in ("", read.etag)
    stale = ci.patch(TOTAL, {"description": "Other."}, **{"If-Match": read.etag})
    assert (stale.status, stale.document["code"]) == (412, "stale_edit")
    assert stale.etag == stale.document["etag"] == done.etag
    assert stale.document["present"] == done.document
    assert ci.patch(TOTAL, {"description": "Other."}, **{"If-Match": f'"x", {done.etag}'}).status == 200
    present = ci.get(TOTAL).etag
    assert ci.patch(TOTAL, {"description": "By a proxy."}, **{"If-Match": f"W/{present}"}).status == 200
    assert ci.patch(TOTAL, {"description": "Any."}, **{"If-Match": "*"}).document["description"] == "Any."


def test_keys_that_are_not_sent_stay_and_null_is_a_default(ci: Asking) -> None:
    before = ci.get(TOTAL).document
    sent = {"description": "So far.", "tags": ["money"], "validation": {"min_value": 1}}
    done = ci.edit(TOTAL, sent).document
    assert {key for key in done if done[key] != before[key]} == {"description", "tags", "validation", "updated_at"}
    back = ci.edit(TOTAL, {"description": None, "tags": None, "validation": None}).document
    assert (back["description"], back["tags"], back["validation"]) == ("", [], {})
    wrong = ci.edit(TOTAL, {"dtype": None})
    assert (wrong.status, [where for where, _ in wrong.problems]) == (422, ["/dtype"])


def test_sending_back_what_was_read_changes_nothing(ci: Asking) -> None:
    from catalog.definitions import document
    from catalog.models import CatalogState

    rows, version = histories(), CatalogState.current().version
    for path, model in [
        (TOTAL, document.Feature),
        (GROUP, document.FeatureGroup),
        ("entities/customer", document.Entity),
    ]:
        read = ci.get(path)
        body = {key: read.document[key] for key in model.model_fields}
        done = ci.patch(path, body, **{"If-Match": read.etag})
        assert (done.status, done.etag, done.document) == (200, read.etag, read.document), done.document
    assert (histories(), CatalogState.current().version) == (rows, version)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (TOTAL, {"name": "other"}, "/name"),
        (TOTAL, {"group": "support"}, "/group"),
        ("feature-services/churn", {"version": 2}, "/version"),
        ("feature-services/churn", {"version": True}, "/version"),
        ("feature-services/churn", {"features": ["support:tickets"]}, "/features"),
        ("owners/growth", {"name": "others"}, "/name"),
        ("data-sources/customer_purchases_files", {"group": "support"}, "/group"),
        ("data-sources/customer_purchases_files", {"path": None}, "/path"),
        (GROUP, {"status": "draft"}, "/status"),
        (GROUP, {"status": None}, "/status"),
        (GROUP, {"features": []}, ""),
        (TOTAL, {"dtype": "string"}, ""),
    ],
)
def test_a_change_that_is_no_change_of_it_is_refused(ci: Asking, path: str, body: dict[str, Any], pointer: str) -> None:
    before = catalog_now()
    answer = ci.edit(path, body)
    assert answer.status == 422, answer.document
    if pointer:
        assert [where for where, _ in answer.problems] == [pointer]
    assert catalog_now() == before


def test_the_names_in_a_body_may_repeat_those_of_the_address(ci: Asking) -> None:
    assert ci.edit(TOTAL, {"group": "customer_purchases", "name": "total_purchases", "description": "x"}).status == 200
    assert ci.edit("feature-services/churn", {"name": "churn", "version": 1, "description": "x"}).status == 200


def test_a_path_of_a_source_is_changed_in_its_group(ci: Asking) -> None:
    done = ci.edit("data-sources/customer_purchases_files", {"path": "other.csv"})
    assert (done.status, done.document["path"], done.document["group"]) == (200, "other.csv", "customer_purchases")
    assert ci.get(GROUP).document["source"]["path"] == "other.csv"
    from catalog.models import DataSource

    DataSource.objects.create(name="alone", path="alone.csv")
    assert ci.edit("data-sources/alone", {"path": "x.csv"}).status == 409
    taken = ci.post("data-sources", {"group": "customer_purchases", "kind": "file", "path": "x.csv", "name": "second"})
    assert taken.status == 409


def test_a_deprecation_may_be_told_with_a_change(ci: Asking) -> None:
    sent = {"status": "deprecated", "replaced_by": "support:tickets", "deprecation_reason": "Counted twice."}
    done = ci.edit(TOTAL, sent).document
    assert (done["effective_status"], done["replaced_by"]) == ("deprecated", "support:tickets")
    later = ci.edit(TOTAL, {"sunset": "2030-01-31T00:00:00Z"}).document
    assert (later["sunset"], later["replaced_by"]) == ("2030-01-31T00:00:00Z", "support:tickets")
    described = ci.edit(TOTAL, {"description": "Old."}).document
    assert (described["status"], described["sunset"]) == ("deprecated", "2030-01-31T00:00:00Z")
    back = ci.edit(TOTAL, {"status": "active"}).document
    assert (back["status"], back["replaced_by"], back["sunset"], back["deprecation_reason"]) == (
        "active",
        None,
        None,
        None,
    )


def test_what_would_give_stored_rows_another_meaning_is_refused_as_by_apply(ci: Asking, catalog: Any) -> None:
    from catalog.schemas import current_schema

    current_schema(catalog)
    answer = ci.edit(TOTAL, {"dtype": "float64"})
    assert (answer.status, answer.document["code"]) == (422, "invalid_definition")
    assert "needs version: 2" in answer.problems[0][1]
    added = ci.post("features?dry_run=true", FEATURE)
    assert added.document["changes"][0]["effects"] == [
        "schema 2: rows written so far answer NOT_FOUND for days_active until backfilled"
    ]


# -- Asking what would happen


def test_a_dry_run_tells_the_plan_and_changes_nothing(ci: Asking) -> None:
    before, rows = catalog_now(), histories()
    planned = ci.post("features?dry_run=true", FEATURE)
    (change,) = planned.document["changes"]
    assert planned.status == 200
    assert (change["sign"], change["kind"], change["name"]) == ("+", "feature", "customer_purchases:days_active")
    assert {"field": "dtype", "old": None, "new": "int64"} in change["fields"]
    changed = ci.patch(f"{TOTAL}?dry_run=true", {"validation": {"min_value": 1}})
    assert changed.document["changes"] == [
        {
            "sign": "~",
            "kind": "feature",
            "name": "customer_purchases:total_purchases",
            "fields": [{"field": "validation", "old": {"not_null": True, "min_value": 0}, "new": {"min_value": 1}}],
            "effects": ["read by churn@1"],
        }
    ]
    assert (catalog_now(), histories()) == (before, rows)
    assert ci.get("features/customer_purchases/days_active").status == 404


def test_a_dry_run_is_refused_as_the_change_would_be(ci: Asking) -> None:
    assert ci.post("features?dry_run=true", FEATURE | {"dtype": "x"}).status == 422
    assert ci.patch(f"{TOTAL}?dry_run=true", {"status": "archived"}).status == 422
    assert ci.patch(f"{TOTAL}?dry_run=true", {"description": "x"}, **{"If-Match": '"old"'}).status == 412
    for text in ("1", "yes", "TRUE", ""):
        assert ci.post(f"features?dry_run={text}", FEATURE).status == 400
    assert ci.post("features?dryrun=true", FEATURE).document["errors"][0]["did_you_mean"] == ["dry_run"]


def test_apply_and_a_change_over_http_leave_the_same_catalog(ci: Asking, tmp_path: Any) -> None:
    """Each way makes the same, one after the other; the second has nothing left to do."""
    from catalog import definitions
    from catalog.definitions.exporting import written_yaml

    ci.post("features", FEATURE)
    ci.edit(GROUP, {"ttl": "30d", "description": "By HTTP."})
    ci.post("feature-services", {"name": "new", "features": ["customer_purchases:days_active"]})
    file = tmp_path / "exported.yaml"
    file.write_text(written_yaml(catalog_now()))
    assert definitions.plan([file]).changes == ()


# -- The history names who


def test_the_history_names_the_key_that_made_a_change(ci: Asking) -> None:
    from django.contrib.auth.models import User

    User.objects.create(username="ci")  # a person who is called as the key is has nothing to do with it
    key = ci.key.split("_")[1]
    ci.post("features", FEATURE)
    ci.edit(TOTAL, {"description": "New.", "tags": ["money"]})
    ci.edit(GROUP, {"inputs": [{"name": "total_spent", "dtype": "float64"}, {"name": "raw", "dtype": "int64"}]})
    ci.post("owners", {"name": "risk"})
    ci.post(f"{TOTAL}/deprecate", {"reason": "Counted twice."})
    for row in (
        newest("Feature", name="days_active"),
        newest("FeatureGroup", name="customer_purchases"),
        newest("GroupInput", name="raw"),
        newest("Owner", name="risk"),
        newest("Feature", name="total_purchases"),
    ):
        assert row.history_user is None
        assert f"key {key} ci" in row.history_change_reason
    assert newest("Feature", name="total_purchases").history_change_reason == (
        f"deprecated by key {key} ci Counted twice."
    )


def test_the_history_names_the_person_who_made_a_change(ci: Asking) -> None:
    ada = person("ada", is_superuser=True)
    assert ada.edit(TOTAL, {"description": "New."}).status == 200
    assert ada.post(f"{TOTAL}/deprecate", {"reason": "Old."}).status == 200
    for row in newest("Feature", name="total_purchases"), newest("Feature", description="New."):
        assert row.history_user.username == "ada"


def test_a_change_takes_as_many_queries_whatever_else_the_catalog_holds(ci: Asking) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from tests.catalog.registry.test_lists import make_features, make_one_more

    def queries(text: str) -> int:
        read = ci.get(TOTAL)
        with CaptureQueriesContext(connection) as captured:
            assert ci.patch(TOTAL, {"description": text}, **{"If-Match": read.etag}).status == 200
        return len(captured)

    make_one_more(0)
    few = queries("Few.")
    for number in range(1, 6):
        make_one_more(number)
    make_features(50)
    assert queries("Many.") == few


def test_a_long_name_of_a_key_fits_into_the_history(ci: Asking) -> None:
    long = holder("read", "registry", name="n" * 100)
    assert long.edit(TOTAL, {"description": "New."}).status == 200
    assert len(newest("Feature", name="total_purchases").history_change_reason) == 100


# -- Rights


def test_who_may_only_read_changes_nothing(ci: Asking) -> None:
    before = catalog_now()
    for reader in (holder("read"), holder("read", "write", "pii:read")):
        assert reader.post("features", FEATURE).status == 403
        assert reader.edit(TOTAL, {"description": "x"}).status == 403
        assert reader.post(f"{TOTAL}/deprecate", {}).status == 403
    assert catalog_now() == before


def test_a_key_for_one_group_changes_it_and_nothing_else(ci: Asking) -> None:
    limited = holder("read", "registry", groups=["support"])
    assert limited.post("features", {"group": "support", "name": "calls", "dtype": "int64"}).status == 201
    assert limited.edit("feature-groups/support", {"description": "x"}).status == 200
    assert limited.post("feature-services", {"name": "s", "features": ["support:tickets"]}).status == 201
    before = catalog_now()
    for kind, body, status in [
        ("features", FEATURE, 422),
        ("feature-services", {"name": "t", "features": ["support:tickets", "customer_purchases:total_purchases"]}, 403),
        ("feature-groups", {"name": "new", "entity": "customer"}, 403),
        ("entities", {"name": "shop", "join_keys": [{"name": "shop_id", "dtype": "int64"}]}, 403),
        ("owners", {"name": "risk"}, 403),
    ]:
        assert limited.post(kind, body).status == status, kind
    for path in (TOTAL, GROUP, "entities/customer", "owners/growth", "feature-services/churn"):
        assert limited.patch(path, {"description": "x"}, **{"If-Match": "*"}).status == 404, path
    assert limited.post(f"{TOTAL}/deprecate", {}).status == 404
    assert catalog_now() == before


def test_names_that_a_caller_does_not_see_are_not_offered(ci: Asking) -> None:
    limited = holder("read", "registry", groups=["support"])
    for body in (
        {"name": "s", "features": ["customer_purchases:total_purchase"]},
        {"name": "s", "features": ["support:ticket"]},
    ):
        offered = [error["did_you_mean"] for error in ci.post("feature-services", body).document["errors"]]
        assert offered[0], body
        seen = [error["did_you_mean"] for error in limited.post("feature-services", body).document["errors"]]
        assert seen == ([["support:tickets"]] if "support:ticket" in body["features"] else [[]])


def test_a_key_that_changes_definitions_need_not_read_them(ci: Asking) -> None:
    writer = holder("registry")
    assert writer.ask("GET", TOTAL).status == 403
    assert writer.patch(TOTAL, {"description": "x"}, **{"If-Match": ci.get(TOTAL).etag}).status == 200
    assert writer.post("features", FEATURE).status == 201


def test_no_key_hands_a_thing_over_or_decides_who_is_in_a_team(ci: Asking) -> None:
    from catalog.models import Owner

    Owner.objects.create(name="risk")
    before = catalog_now()
    for path, body in [
        (GROUP, {"owner": "risk"}),
        (TOTAL, {"owner": "risk"}),
        ("owners/growth", {"members": ["ci"]}),
        ("entities/customer", {"owner": "growth"}),
    ]:
        person("ci") if "members" in body else None
        answer = ci.edit(path, body)
        assert answer.status == 403, (path, answer.document)
        assert "for people who manage it" in answer.document["detail"]
    assert catalog_now() == before
    root = person("root", is_superuser=True)
    assert root.edit(GROUP, {"owner": "risk"}).document["owner"] == "risk"
    assert root.edit("owners/growth", {"members": ["root"]}).document["members"] == ["root"]


def with_role(role: str, name: str, group: str = "support") -> Asking:
    from django.contrib.auth.models import User

    from catalog.models import FeatureGroup, GroupRole, Owner

    made = person(name)
    team = Owner.objects.create(name=f"team_{name}")
    team.members.add(User.objects.get(username=name))
    GroupRole.objects.create(group=FeatureGroup.objects.get(name=group), team=team, role=role)
    return made


def test_people_change_what_their_role_is_for(ci: Asking) -> None:
    viewer, editor = with_role("viewer", "vera"), with_role("editor", "ed")
    tickets = "features/support/tickets"
    assert viewer.edit(tickets, {"description": "x"}).status == 403
    assert editor.edit(tickets, {"description": "x"}).status == 200
    assert editor.post("features", {"group": "support", "name": "calls", "dtype": "int64"}).status == 201
    assert editor.edit("feature-groups/support", {"owner": "growth"}).status == 403
    source = {"source": {"kind": "file", "path": "everything.csv"}}
    assert editor.edit("feature-groups/support", source).status == 403
    assert editor.post("data-sources", {"group": "support", "kind": "file", "path": "x.csv"}).status == 403
    assert editor.post("feature-groups", {"name": "new", "entity": "customer"}).status == 403
    assert editor.post("owners", {"name": "new"}).status == 403
    assert editor.edit("entities/customer", {"description": "x"}).status == 403
    assert editor.patch(TOTAL, {"description": "x"}, **{"If-Match": "*"}).status == 404
    owner = with_role("owner", "olga")
    assert owner.edit("feature-groups/support", {"owner": "growth"}).status == 200


def test_a_session_needs_its_csrf_token(catalog: Any) -> None:
    from django.contrib.auth.models import User
    from django.test import Client

    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create(username="root", is_superuser=True))
    asking = Asking(browser)
    assert asking.get(TOTAL).status == 200
    assert asking.post("features", FEATURE).status == 403
    assert asking.patch(TOTAL, {"description": "x"}, **{"If-Match": "*"}).status == 403
    browser.cookies["csrftoken"] = "a" * 32
    assert asking.post("features", FEATURE, **{"X-CSRFToken": "a" * 32}).status == 201


def test_tags_are_made_by_naming_them(ci: Asking) -> None:
    assert ci.post("tags", {"name": "money"}).status == 405
    ci.edit(TOTAL, {"tags": ["money"]})
    assert ci.get("tags/money").document == {"name": "money"}
