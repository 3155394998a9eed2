"""The admin as a person uses it: every page, the actions with what they refuse, and what the forms say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from catalog import access
from catalog.admin.rules import allowed_values_text, parse_allowed_values
from catalog.admin.transition import DeprecationForm
from catalog.models import (
    ApiKey,
    DataSource,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    Owner,
    Run,
    Status,
    Tag,
)
from catalog.moments import duration_text, parse_duration_text
from catalog.schemas import current_schema
from catalog.timing import due_times, overdue_since

pytestmark = pytest.mark.django_db

AVERAGE = "CASE WHEN total_purchases > 0 THEN total_spent / total_purchases ELSE 0 END"
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture
def browser() -> Client:
    """A browser in which the superuser `ada` is logged in."""
    client = Client()
    # Without a password, since hashing one would take longer than most tests here.
    client.force_login(User.objects.create(username="ada", is_superuser=True, is_staff=True))
    return client


@pytest.fixture
def group() -> FeatureGroup:
    """customer_purchases: an input, three features of which one is computed, a source and a schedule."""
    growth = Owner.objects.create(name="growth", email="growth@example.com")
    customer = Entity.objects.create(name="customer", description="Bought at least once.", owner=growth)
    customer.join_keys.create(name="customer_id", dtype="string")
    hourly = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    made = FeatureGroup.objects.create(
        name="customer_purchases",
        entity=customer,
        owner=growth,
        status=Status.ACTIVE,
        ttl=timedelta(days=90),
        freshness=timedelta(days=1),
        source=DataSource.objects.create(name="purchases", path="cdnow/*.parquet"),
        schedule=PeriodicTask.objects.create(name="hourly purchases", task="ingest", interval=hourly),
    )
    made.tags.add(Tag.objects.create(name="purchases"))
    made.inputs.create(name="total_spent", dtype="float64")
    made.features.create(name="total_purchases", dtype="int64", type="numerical", description="Purchases so far.")
    made.features.create(name="avg_value", dtype="float64", type="numerical", expression=AVERAGE, position=1)
    made.features.create(
        name="segment",
        dtype="string",
        type="categorical",
        position=2,
        validation={"allowed_values": ["bronze", "gold"]},
        status=Status.DRAFT,
    )
    return made


@pytest.fixture
def service(group: FeatureGroup) -> FeatureService:
    """churn@1, active, reading total_purchases and avg_value in this order."""
    made = FeatureService.objects.create(name="churn")
    for position, name in enumerate(["total_purchases", "avg_value"]):
        made.chosen.create(feature=group.features.get(name=name), position=position)
    return made


NO_REQUEST_INPUTS = {"request_inputs-TOTAL_FORMS": 0, "request_inputs-INITIAL_FORMS": 0}


def page(model: str, name: str = "changelist", *arguments: object, app: str = "catalog") -> str:
    return reverse(f"admin:{app}_{model}_{name}", args=arguments)


def text_of(response: HttpResponse) -> str:
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def table_of(response: HttpResponse) -> str:
    """The rows of a list page, without the filters beside them."""
    text = text_of(response)
    match = re.search(r'<table id="result_list".*?</table>', text, re.DOTALL)
    return match[0] if match else ""


def messages_of(response: HttpResponse) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def form_of(client: Client, url: str) -> dict[str, object]:
    """What a browser would send back from the form at `url`, unchanged."""
    response = client.get(url)
    sent: dict[str, object] = {}
    forms = [response.context["adminform"].form]
    for inline in response.context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    for form in forms:
        for field in form:
            value = field.value()
            if value is not None and value is not False:
                sent[field.html_name] = (
                    [getattr(item, "pk", item) for item in value] if isinstance(value, list) else value
                )
    return sent


# -- Every page.


@pytest.fixture
def shown(group: FeatureGroup, service: FeatureService) -> dict[str, tuple[str, object, str]]:
    """Of each page: its model's URL name, one object, and a text that stands on its list page."""
    run = Run.queue(group, requested_by="ada")
    run.begin()
    run.rows_read = 1_234_567
    run.fail("The column total_spent is missing.", "invalid_source")
    key, _ = access.create_key(name="notebook", scopes=["read"])
    return {
        "owner": ("catalog_owner", Owner.objects.get(), "growth@example.com"),
        "tag": ("catalog_tag", Tag.objects.get(), "purchases"),
        "entity": ("catalog_entity", Entity.objects.get(), "customer_id string"),
        "source": ("catalog_datasource", DataSource.objects.get(), "cdnow/*.parquet"),
        "group": ("catalog_featuregroup", group, "90d"),
        "feature": ("catalog_feature", group.features.first(), "total_purchases"),
        "service": ("catalog_featureservice", service, "churn"),
        "run": ("catalog_run", run, "1,234,567"),
        "key": ("catalog_apikey", key, "notebook"),
        "task": ("django_celery_beat_periodictask", PeriodicTask.objects.get(), "hourly purchases"),
        "interval": ("django_celery_beat_intervalschedule", IntervalSchedule.objects.get(), "every hour"),
        "crontab": (
            "django_celery_beat_crontabschedule",
            CrontabSchedule.objects.create(minute="0", hour="4"),
            "04:00",
        ),
        "clocked": ("django_celery_beat_clockedschedule", ClockedSchedule.objects.create(clocked_time=NOON), "2026"),
        "solar": (
            "django_celery_beat_solarschedule",
            SolarSchedule.objects.create(event="sunrise", latitude=52, longitude=13),
            "Sunrise",
        ),
        "user": ("auth_user", User.objects.create(username="grace"), "grace"),
    }


def test_every_list_page_shows_its_data(browser: Client, shown: dict[str, tuple[str, object, str]]) -> None:
    for name, _, text in shown.values():
        assert text in table_of(browser.get(reverse(f"admin:{name}_changelist"))), name


def test_every_change_page_opens_and_asks_nothing_of_other_servers(
    browser: Client, shown: dict[str, tuple[str, object, str]]
) -> None:
    for name, thing, _ in shown.values():
        for url in (
            reverse(f"admin:{name}_changelist"),
            reverse(f"admin:{name}_change", args=[thing.pk]),  # type: ignore[attr-defined]
        ):
            assert_nothing_external(text_of(browser.get(url)))


def assert_nothing_external(html: str) -> None:
    linked = re.findall(r"""(?:src|href|action|url\()\s*=?\s*["']?((?:https?:)?//[^"'\s>)]+)""", html)
    assert [url for url in linked if "//localhost" not in url and "//testserver" not in url] == []


def test_the_check_for_other_servers_sees_one() -> None:
    with pytest.raises(AssertionError):
        assert_nothing_external('<link rel="stylesheet" href="https://cdn.example.com/style.css">')


def test_every_add_page_opens_except_of_what_only_the_hub_makes(
    browser: Client, shown: dict[str, tuple[str, object, str]]
) -> None:
    for kind, (name, _, _) in shown.items():
        response = browser.get(reverse(f"admin:{name}_add"))
        assert response.status_code == (403 if kind == "run" else 200), name


def test_index_and_sidebar_name_the_catalog(browser: Client) -> None:
    text = text_of(browser.get(reverse("admin:index")))
    assert_nothing_external(text)
    for word in ("Catalog", "Ingestion", "People", page("feature"), page("run"), page("user", app="auth")):
        assert word in text


def test_somebody_who_may_only_look_sees_no_more_than_that(group: FeatureGroup) -> None:
    from django.contrib.auth.models import Permission

    viewer = User.objects.create_user("eve", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_feature"))
    client = Client()
    client.force_login(viewer)
    segment = group.features.get(name="segment")
    text = text_of(client.get(page("feature", "change", segment.pk)))
    assert "allowed values" in text
    assert "bronze" in text
    assert page("run") not in text
    assert client.get(page("feature", "archive", segment.pk)).status_code == 403
    assert (
        client.post(page("feature"), {"action": "archive_selected", "_selected_action": segment.pk}).status_code == 200
    )
    segment.refresh_from_db()
    assert segment.status == Status.DRAFT


def test_without_a_login_every_page_leads_to_it(group: FeatureGroup) -> None:
    feature = group.features.get(name="segment")
    for url in (page("feature"), page("feature", "change", feature.pk), page("feature", "archive", feature.pk)):
        response = Client().get(url)
        assert response.status_code == 302
        assert response.headers["Location"].startswith(reverse("admin:login"))


# -- Finding.


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("?q=so+far", ["total_purchases"]),
        ("?q=growth", ["avg_value", "segment", "total_purchases"]),  # inherited from the group
        ("?q=nothing-like-this", []),
        ("?status=draft", ["segment"]),
        ("?status=active", ["avg_value", "total_purchases"]),
        ("?type__exact=categorical", ["segment"]),
        ("?owner=none", []),
        ("?group__entity__id__exact={entity}", ["avg_value", "segment", "total_purchases"]),
        ("?group__id__exact=0", []),
        ("?tags__id__exact={tag}", ["avg_value"]),
        ("?owner={owner}", ["avg_value", "segment", "total_purchases"]),
    ],
)
def test_features_are_found_by_what_people_know(
    browser: Client, group: FeatureGroup, question: str, found: list[str]
) -> None:
    tag = Tag.objects.create(name="money")
    group.features.get(name="avg_value").tags.add(tag)
    url = page("feature") + question.format(entity=group.entity_id, tag=tag.pk, owner=group.owner_id)
    table = table_of(browser.get(url))
    assert sorted(name for name in ("avg_value", "segment", "total_purchases") if f">{name}<" in table) == found


def test_status_filter_agrees_with_the_models_rule(browser: Client, group: FeatureGroup) -> None:
    group.features.all().delete()
    for of_group in Status.values:
        holder = FeatureGroup.objects.create(name=f"in_{of_group}", entity=group.entity, status=of_group)
        for own in ("", *Status.values):
            holder.features.create(name=f"own_{own}", dtype="int64", type="numerical", status=own)
    features = list(Feature.objects.select_related("group"))
    assert len(features) == 20
    for status in Status.values:
        table = table_of(browser.get(f"{page('feature')}?status={status}"))
        listed = {feature.pk for feature in features if page("feature", "change", feature.pk) in table}
        assert listed == {feature.pk for feature in features if feature.effective_status == status}


@pytest.mark.parametrize("model", ["feature", "featuregroup", "featureservice", "run"])
def test_a_list_of_thirty_asks_no_more_than_a_list_of_three(browser: Client, group: FeatureGroup, model: str) -> None:
    make_more(group, 3)
    few = queries_of(browser, page(model))
    make_more(group, 30)
    assert queries_of(browser, page(model)) == few


def make_more(group: FeatureGroup, count: int) -> None:
    for number in range(count):
        owner = Owner.objects.create(name=f"team_{count}_{number}")
        tag = Tag.objects.create(name=f"tag_{count}_{number}")
        entity = Entity.objects.create(name=f"entity_{count}_{number}")
        every = IntervalSchedule.objects.create(every=count * 100 + number, period="seconds")
        more = FeatureGroup.objects.create(
            name=f"group_{count}_{number}",
            entity=entity,
            owner=owner,
            source=DataSource.objects.create(name=f"source_{count}_{number}", path="some.csv"),
            schedule=PeriodicTask.objects.create(name=f"task {count} {number}", task="ingest", interval=every),
        )
        feature = more.features.create(name="some", dtype="int64", type="numerical", owner=owner)
        feature.tags.add(tag)
        service = FeatureService.objects.create(name=f"service_{count}_{number}", owner=owner)
        service.chosen.create(feature=feature, position=0)
        Run.queue(more)


def queries_of(browser: Client, url: str) -> int:
    browser.get(url)  # what is asked once per process is asked before
    with CaptureQueriesContext(
        connection,
    ) as captured:
        text_of(browser.get(url))
    return len(captured)


# -- Status.


def test_a_feature_is_activated_on_its_page_once_that_is_confirmed(browser: Client, group: FeatureGroup) -> None:
    segment = group.features.get(name="segment")
    url = page("feature", "activate", segment.pk)
    assert url in text_of(browser.get(page("feature", "change", segment.pk)))
    assert "served from the next request" in text_of(browser.get(url))
    segment.refresh_from_db()
    assert segment.status == Status.DRAFT

    response = browser.post(url, {"confirmed": "yes"}, follow=True)

    segment.refresh_from_db()
    assert segment.status == Status.ACTIVE
    assert "is active" in messages_of(response)
    newest = segment.history.first()
    assert newest.history_user.username == "ada"
    assert newest.history_change_reason == "active by ada"


def test_only_the_changes_that_may_follow_are_offered(browser: Client, group: FeatureGroup) -> None:
    text = text_of(browser.get(page("featuregroup", "change", group.pk)))
    assert page("featuregroup", "deprecate", group.pk) in text
    assert page("featuregroup", "archive", group.pk) in text
    assert page("featuregroup", "activate", group.pk) not in text


def test_archiving_what_is_read_is_refused_naming_the_reader(browser: Client, service: FeatureService) -> None:
    feature = service.features.get(name="avg_value")
    for model, thing in (("feature", feature), ("featuregroup", feature.group)):
        url = page(model, "archive", thing.pk)
        asked = text_of(browser.get(url))
        assert "churn@1" in asked
        assert "410 Gone" in asked
        response = browser.post(url, {"confirmed": "yes"}, follow=True)
        assert "churn@1" in messages_of(response)
        thing.refresh_from_db()
        assert thing.status != Status.ARCHIVED


def test_a_selection_is_archived_except_what_is_read(browser: Client, service: FeatureService) -> None:
    read, unread = Feature.objects.get(name="avg_value"), Feature.objects.get(name="segment")
    chosen = {"action": "archive_selected", "_selected_action": [read.pk, unread.pk]}
    assert "churn@1" in text_of(browser.post(page("feature"), chosen))
    assert not Feature.objects.filter(status=Status.ARCHIVED).exists()

    response = browser.post(page("feature"), {**chosen, "confirmed": "yes"}, follow=True)

    assert list(Feature.objects.filter(status=Status.ARCHIVED)) == [unread]
    assert "avg_value cannot be archived: it is read by churn@1" in messages_of(response)


@pytest.mark.parametrize("model", ["featuregroup", "featureservice"])
def test_groups_and_services_are_deprecated_activated_and_archived(
    browser: Client, service: FeatureService, model: str
) -> None:
    thing = FeatureGroup.objects.get() if model == "featuregroup" else service
    for action, status in (("deprecate", "deprecated"), ("activate", "active"), ("deprecate", "deprecated")):
        sent = {"confirmed": "yes", "reason": "A better one exists."}
        browser.post(page(model, action, thing.pk), sent if action == "deprecate" else {"confirmed": "yes"})
        thing.refresh_from_db()
        assert thing.status == status
    assert thing.history.first().history_change_reason == "deprecated by ada A better one exists."
    FeatureService.objects.update(status=Status.ARCHIVED)
    chosen = {"action": "archive_selected", "_selected_action": [thing.pk], "confirmed": "yes"}
    FeatureGroup.objects.update(status=Status.ACTIVE)
    browser.post(page(model), chosen)
    thing.refresh_from_db()
    assert thing.status == Status.ARCHIVED


def test_deprecating_asks_for_the_reason_the_replacement_and_the_sunset(
    browser: Client, service: FeatureService
) -> None:
    old, new = Feature.objects.get(name="total_purchases"), Feature.objects.get(name="avg_value")
    url = page("feature", "deprecate", old.pk)
    asked = text_of(browser.get(url))
    assert "churn@1" in asked
    assert_nothing_external(asked)
    assert "This field is required" in text_of(browser.post(url, {"confirmed": "yes"}))
    past = {"confirmed": "yes", "reason": "Wrong.", "sunset": "2020-01-01"}
    assert "A sunset lies in the future" in text_of(browser.post(url, past))
    old.refresh_from_db()
    assert old.status == ""

    day = (timezone.now() + timedelta(days=30)).date()
    sent = {"confirmed": "yes", "reason": "Counts refunds.", "replaced_by": new.pk, "sunset": day.isoformat()}
    browser.post(url, sent, follow=True)

    old.refresh_from_db()
    assert (old.status, old.deprecation_reason, old.replaced_by) == (Status.DEPRECATED, "Counts refunds.", new)
    assert old.sunset_at == datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert "Counts refunds." in text_of(browser.get(page("feature", "change", old.pk)))


def test_a_replacement_is_an_active_feature_of_the_same_entity(group: FeatureGroup) -> None:
    other = FeatureGroup.objects.create(name="shops", entity=Entity.objects.create(name="shop"), status=Status.ACTIVE)
    other.features.create(name="turnover", dtype="float64", type="numerical")
    form = DeprecationForm(features=[group.features.get(name="total_purchases")])
    assert [str(feature) for feature in form.fields["replaced_by"].queryset] == ["customer_purchases:avg_value"]


def test_a_status_is_not_changed_by_a_form(browser: Client, group: FeatureGroup) -> None:
    for model, thing in (("feature", group.features.get(name="segment")), ("featuregroup", group)):
        url = page(model, "change", thing.pk)
        before = thing.status
        response = browser.post(url, {**form_of(browser, url), "status": "archived", "description": "New words."})
        assert response.status_code == 302, response.context["errors"]
        thing.refresh_from_db()
        assert (thing.status, thing.description) == (before, "New words.")


# -- Features.


def feature_form(of: FeatureGroup, **changes: object) -> dict[str, object]:
    sent = {"name": "ratio", "group": of.pk, "dtype": "float64", "type": "numerical", "on_violation": "quarantine"}
    return {**sent, **changes}


def errors_of(response: HttpResponse) -> dict[str, str]:
    assert response.status_code == 200
    return {field: unescape(" ".join(errors)) for field, errors in response.context["adminform"].form.errors.items()}


def test_a_feature_is_added_with_its_rules_and_comes_last(browser: Client, group: FeatureGroup) -> None:
    sent = feature_form(
        group,
        dtype="int64",
        expression="total_purchases * 2",
        not_null="on",
        min_value="0",
        max_value="10",
        allowed_values="2\n4",
        on_violation="set_null",
    )
    response = browser.post(page("feature", "add"), sent)
    assert response.status_code == 302, errors_of(response)
    made = Feature.objects.get(name="ratio")
    assert made.position == 3
    assert made.validation == {
        "not_null": True,
        "min_value": 0,
        "max_value": 10,
        "allowed_values": [2, 4],
        "on_violation": "set_null",
    }
    assert made.history.get().history_user.username == "ada"


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"expression": "total_spnt / 2"}, "expression", "unknown column 'total_spnt' at character 1"),
        ({"expression": "SUM(total_spent)"}, "expression", "at character 1"),
        ({"expression": "total_purchases / "}, "expression", "at character"),
        ({"dtype": "float46"}, "dtype", "is not a dtype"),
        ({"dtype": ""}, "dtype", "required"),
        ({"group": ""}, "group", "required"),
        ({"name": "total_spent"}, "name", "taken by the input"),
        ({"name": "Ratio"}, "name", "lower-case"),
        ({"name": "segment"}, "__all__", "already"),
        ({"min_value": "3", "max_value": "2"}, "min_value", "no value could pass"),
        ({"min_value": "much"}, "min_value", "not a number"),
        ({"regex": "("}, "regex", "regex"),
        ({"dtype": "int64", "allowed_values": "one"}, "allowed_values", "not a number"),
        ({"dtype": "string", "allowed_values": "[1"}, "allowed_values", "not a JSON list"),
        ({"function": "os.system", "arguments": "total_spent"}, "function", "os"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_that_can_mend_it(
    browser: Client, group: FeatureGroup, changes: dict[str, object], field: str, said: str
) -> None:
    errors = errors_of(browser.post(page("feature", "add"), feature_form(group, **changes)))
    assert said in errors[field], errors
    assert not Feature.objects.filter(name="ratio").exists()


def test_a_change_of_meaning_asks_for_a_new_version_and_renaming_is_not_offered(
    browser: Client, group: FeatureGroup
) -> None:
    current_schema(group)
    feature = group.features.get(name="avg_value")
    url = page("feature", "change", feature.pk)
    sent = form_of(browser, url)
    errors = errors_of(browser.post(url, {**sent, "expression": "total_spent"}))
    assert "raise the version" in errors["expression"]
    assert browser.post(url, {**sent, "name": "mean_value"}).status_code == 302
    feature.refresh_from_db()
    assert feature.name == "avg_value"


def test_a_form_sent_back_unchanged_changes_nothing(
    browser: Client, group: FeatureGroup, service: FeatureService
) -> None:
    rules = {"not_null": False, "min_value": 0, "max_value": 1.0, "on_violation": "quarantine"}
    group.features.filter(name="avg_value").update(validation=rules)
    draft = FeatureService.objects.create(name="draft", status=Status.DRAFT)
    draft.chosen.create(feature=group.features.first(), position=0)
    things = [("feature", feature) for feature in group.features.all()]
    for model, thing in [*things, ("featuregroup", group), ("entity", group.entity), ("featureservice", draft)]:
        url = page(model, "change", thing.pk)
        before = type(thing).objects.filter(pk=thing.pk).values().get()
        response = browser.post(url, form_of(browser, url))
        assert response.status_code == 302, (thing, response.context["errors"])
        after = type(thing).objects.filter(pk=thing.pk).values().get()
        assert {**before, "updated_at": None} == {**after, "updated_at": None}
    assert list(service.chosen.values_list("position", flat=True)) == [0, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", "b"], "string"),
        (["1", "true"], "string"),
        ([" padded"], "string"),
        (["two\nlines"], "string"),
        (["[x"], "string"),
        ([1, 2], "int64"),
        ([1.0, 2], "float64"),
        ([1.5], "int64"),
        ([True, False], "bool"),
        ([], "string"),
        (None, "string"),
    ],
)
def test_allowed_values_come_back_from_the_text_that_shows_them(values: list[object] | None, dtype: str) -> None:
    back = parse_allowed_values(allowed_values_text(values, dtype), dtype)
    assert repr(back) == repr(values)


# -- Groups, entities, services.


def test_a_group_is_added_with_durations_as_people_write_them(browser: Client, group: FeatureGroup) -> None:
    sent = {
        **{"name": "visits", "version": 1, "entity": group.entity_id, "status": "draft"},
        **{"ttl": "36h", "freshness": "", "event_timestamp": "seen_at", "created_timestamp": ""},
        **{"inputs-TOTAL_FORMS": 1, "inputs-INITIAL_FORMS": 0, "inputs-0-name": "raw", "inputs-0-dtype": "int64"},
        **{"inputs-0-position": 0, **NO_REQUEST_INPUTS},
    }
    assert errors_of(browser.post(page("featuregroup", "add"), {**sent, "ttl": "long"}))["ttl"].startswith("Write")
    response = browser.post(page("featuregroup", "add"), sent)
    assert response.status_code == 302, errors_of(response)
    visits = FeatureGroup.objects.get(name="visits")
    assert visits.ttl == timedelta(hours=36)
    assert visits.inputs.get().history.get().history_user.username == "ada"


def test_an_input_that_a_feature_reads_is_not_taken_away(browser: Client, group: FeatureGroup) -> None:
    url = page("featuregroup", "change", group.pk)
    response = browser.post(url, {**form_of(browser, url), "inputs-0-DELETE": "on"})
    assert "total_spent" in text_of(response)
    assert "unknown column" in text_of(response)
    assert group.inputs.count() == 1


def test_an_input_may_not_take_the_name_of_a_join_key(browser: Client, group: FeatureGroup) -> None:
    sent = {
        **{"name": "visits", "version": 1, "entity": group.entity_id, "status": "draft", "event_timestamp": "seen_at"},
        **{"inputs-TOTAL_FORMS": 1, "inputs-INITIAL_FORMS": 0, "inputs-0-position": 0, **NO_REQUEST_INPUTS},
        **{"inputs-0-name": "customer_id", "inputs-0-dtype": "string"},
    }
    assert "taken by the join key" in text_of(browser.post(page("featuregroup", "add"), sent))
    assert not FeatureGroup.objects.filter(name="visits").exists()


def with_request_feature(group: FeatureGroup) -> Feature:
    group.request_inputs.create(name="cart_value", dtype="float64")
    return group.features.create(
        name="cart_ratio", dtype="float64", type="numerical", position=3, expression="cart_value / avg_value"
    )


def test_features_that_are_computed_on_request_are_shown_with_what_readers_send(
    browser: Client, group: FeatureGroup
) -> None:
    ratio = with_request_feature(group)
    listed = table_of(browser.get(page("feature")))
    assert listed.count("on request, from cart_value (float64)") == 1
    assert listed.count("on ingestion") == 1  # avg_value
    assert "on request, from cart_value (float64)" in text_of(browser.get(page("feature", "change", ratio.pk)))
    assert "cart_value / avg_value (on request)" in text_of(browser.get(page("featuregroup", "change", group.pk)))


def test_a_services_page_says_what_readers_send(browser: Client, service: FeatureService, group: FeatureGroup) -> None:
    url = page("featureservice", "change", service.pk)
    assert "the keys of its entities" in text_of(browser.get(url))
    service.chosen.create(feature=with_request_feature(group), position=2)
    assert "cart_value (float64)" in text_of(browser.get(url))


def test_a_request_input_is_added_on_the_groups_page_and_refused_by_name(browser: Client, group: FeatureGroup) -> None:
    url = page("featuregroup", "change", group.pk)
    sent = {
        **form_of(browser, url),
        **{"request_inputs-TOTAL_FORMS": 1, "request_inputs-0-position": 0},
        **{"request_inputs-0-name": "total_spent", "request_inputs-0-dtype": "float64"},
    }
    assert "taken by the input" in text_of(browser.post(url, sent))
    assert browser.post(url, {**sent, "request_inputs-0-name": "cart_value"}).status_code == 302
    assert [column.name for column in group.request_inputs.all()] == ["cart_value"]
    assert group.request_inputs.get().history.get().history_user.username == "ada"
    group.features.create(name="cart", dtype="float64", type="numerical", position=3, expression="cart_value")
    response = browser.post(url, {**form_of(browser, url), "request_inputs-0-DELETE": "on"})
    assert "unknown column" in text_of(response)
    assert group.request_inputs.count() == 1


def test_a_feature_that_rows_hold_is_not_made_one_that_is_computed_on_request(
    browser: Client, group: FeatureGroup
) -> None:
    from catalog.schemas import current_schema

    current_schema(group)
    group.request_inputs.create(name="cart_value", dtype="float64")
    url = page("feature", "change", group.features.get(name="avg_value").pk)
    refused = browser.post(url, {**form_of(browser, url), "expression": "cart_value"})
    assert "avg_value is computed on request now" in errors_of(refused)["expression"]


def test_the_version_of_a_group_only_rises(browser: Client, group: FeatureGroup) -> None:
    url = page("featuregroup", "change", group.pk)
    assert browser.post(url, {**form_of(browser, url), "version": 2}).status_code == 302
    assert "only rises" in errors_of(browser.post(url, {**form_of(browser, url), "version": 1}))["version"]


def test_a_groups_page_links_its_features_and_its_last_run(browser: Client, group: FeatureGroup) -> None:
    run = Run.queue(group)
    text = text_of(browser.get(page("featuregroup", "change", group.pk)))
    for feature in group.features.all():
        assert page("feature", "change", feature.pk) in text
    assert page("run", "change", run.pk) in text
    assert f"{page('feature', 'add')}?group={group.pk}" in text


def test_the_features_of_a_draft_service_are_reordered_and_of_an_active_one_are_not(
    browser: Client, service: FeatureService
) -> None:
    url = page("featureservice", "change", service.pk)
    service.status = Status.DRAFT
    service.save()
    sent = {**form_of(browser, url), "chosen-0-position": 1, "chosen-1-position": 0}
    assert browser.post(url, sent).status_code == 302
    assert service.feature_names() == ["customer_purchases:avg_value", "customer_purchases:total_purchases"]

    service.status = Status.ACTIVE
    service.save()
    browser.post(url, {**sent, "chosen-0-position": 0, "chosen-1-position": 1, "description": "Fixed."})
    service.refresh_from_db()
    assert service.description == "Fixed."
    assert service.feature_names() == ["customer_purchases:avg_value", "customer_purchases:total_purchases"]


def test_taking_the_first_feature_away_moves_the_others_up(browser: Client, service: FeatureService) -> None:
    service.status = Status.DRAFT
    service.save()
    url = page("featureservice", "change", service.pk)
    segment = Feature.objects.get(name="segment")
    sent = {
        **form_of(browser, url),
        **{"chosen-TOTAL_FORMS": 3, "chosen-0-DELETE": "on", "chosen-2-feature": segment.pk, "chosen-2-position": ""},
    }
    response = browser.post(url, sent)
    assert response.status_code == 302, response.context["errors"]
    assert list(service.chosen.values_list("position", "feature__name")) == [(0, "avg_value"), (1, "segment")]


def test_join_keys_are_fixed_once_rows_are_stored_under_them(browser: Client, group: FeatureGroup) -> None:
    url = page("entity", "change", group.entity_id)
    sent = {**form_of(browser, url), "join_keys-0-dtype": "int64"}
    current_schema(group)
    browser.post(url, sent)
    assert group.entity.join_keys.get().dtype == "string"


def test_only_what_nobody_needs_can_be_deleted(browser: Client, service: FeatureService) -> None:
    group = FeatureGroup.objects.get(name="customer_purchases")
    kept = [("feature", group.features.get(name="avg_value")), ("featuregroup", group), ("entity", group.entity)]
    for model, thing in [*kept, ("featureservice", service)]:
        assert browser.post(page(model, "delete", thing.pk), {"post": "yes"}).status_code == 403, thing
        assert "delete_selected" not in text_of(browser.get(page(model)))
    draft = group.features.get(name="segment")
    assert browser.post(page("feature", "delete", draft.pk), {"post": "yes"}).status_code == 302
    assert not Feature.objects.filter(pk=draft.pk).exists()


def test_a_draft_that_rows_hold_is_not_deleted(browser: Client, group: FeatureGroup) -> None:
    current_schema(group)
    draft = group.features.get(name="segment")
    assert browser.post(page("feature", "delete", draft.pk), {"post": "yes"}).status_code == 403


# -- History, keys, schedules.


def test_history_says_who_changed_what(browser: Client, group: FeatureGroup) -> None:
    feature = group.features.get(name="total_purchases")
    url = page("feature", "change", feature.pk)
    assert browser.post(url, {**form_of(browser, url), "description": "All purchases."}).status_code == 302
    text = text_of(browser.get(page("feature", "history", feature.pk)))
    for word in ("ada", "Purchases so far.", "All purchases."):
        assert word in text
    old = feature.history.last()
    entry = page("feature", "simple_history", feature.pk, old.pk)
    assert "Purchases so far." in text_of(browser.get(entry))
    assert browser.post(entry, form_of(browser, url)).status_code == 403


def test_a_revoked_key_is_refused_from_then_on(browser: Client) -> None:
    key, text = access.create_key(name="notebook", scopes=["read"])
    chosen = {"action": "revoke_selected", "_selected_action": [key.pk]}
    assert "cannot be brought back" in text_of(browser.post(page("apikey"), chosen))
    assert access.caller_of(text).name == "notebook"

    browser.post(page("apikey"), {**chosen, "confirmed": "yes"})

    with pytest.raises(access.NotAuthenticated):
        access.caller_of(text)
    assert ApiKey.objects.get().revoked_at is not None
    assert ">revoked<" in re.sub(
        r"</span>(?=revoked)|\s", lambda m: ">" if m[0].startswith("<") else "", table_of(browser.get(page("apikey")))
    )


def test_a_page_never_shows_what_is_kept_of_a_secret(browser: Client) -> None:
    key, _ = access.create_key(name="notebook", scopes=["read"])
    for url in (page("apikey"), page("apikey", "change", key.pk)):
        assert key.secret_sha256 not in text_of(browser.get(url))


@pytest.mark.parametrize(
    ("last_run", "expected"),
    [
        (None, ["13:00", "14:00", "15:00"]),
        ("11:30", ["12:30", "13:30", "14:30"]),
        ("10:30", ["12:00", "13:00", "14:00"]),  # overdue: now, then an hour on
    ],
)
def test_an_interval_is_due_an_hour_after_it_ran(last_run: str | None, expected: list[str]) -> None:
    task = PeriodicTask(
        interval=IntervalSchedule.objects.create(every=1, period="hours"),
        last_run_at=last_run and datetime.fromisoformat(f"2026-11-02T{last_run}:00+00:00"),
    )
    assert [f"{moment:%H:%M}" for moment in due_times(task, 3, now=NOON)] == expected


def test_a_crontab_is_due_at_its_times() -> None:
    task = PeriodicTask(crontab=CrontabSchedule.objects.create(minute="15", hour="4,16"), last_run_at=NOON)
    assert [f"{moment:%d %H:%M}" for moment in due_times(task, 3, now=NOON)] == ["02 16:15", "03 04:15", "03 16:15"]


def test_a_task_that_is_off_is_never_due() -> None:
    task = PeriodicTask(interval=IntervalSchedule.objects.create(every=1, period="hours"), enabled=False)
    assert due_times(task, 3, now=NOON) == []


def hourly(**fields: object) -> PeriodicTask:
    every = IntervalSchedule.objects.get_or_create(every=3600, period="seconds")[0]
    return PeriodicTask(**{"interval": every, "date_changed": NOON - timedelta(days=3), **fields})


@pytest.mark.parametrize(
    ("fields", "ran_at", "late_since"),
    [
        ({"last_run_at": NOON - timedelta(minutes=64)}, None, None),  # due at 11:56, within the grace of 5 minutes
        ({"last_run_at": NOON - timedelta(minutes=66)}, None, "11:54"),
        (
            {"last_run_at": NOON - timedelta(hours=9)},
            NOON - timedelta(minutes=30),
            None,
        ),  # the beat has not noted it yet
        ({"last_run_at": NOON - timedelta(hours=9), "enabled": False}, None, None),
        ({"last_run_at": NOON - timedelta(hours=9), "one_off": True}, None, None),
        ({"date_changed": NOON - timedelta(hours=2)}, None, "11:00"),  # made two hours ago, and never ran
        ({"date_changed": NOON - timedelta(hours=2), "start_time": NOON + timedelta(hours=1)}, None, None),
    ],
)
def test_a_task_is_overdue_when_its_time_went_by_without_it(
    fields: dict[str, object], ran_at: datetime | None, late_since: str | None
) -> None:
    late = overdue_since(hourly(**fields), now=NOON, ran_at=ran_at)
    assert (late and f"{late:%H:%M}") == late_since


def test_a_crontab_is_overdue_by_its_own_zone() -> None:
    berlin = CrontabSchedule.objects.create(minute="0", hour="6", timezone="Europe/Berlin")
    task = PeriodicTask(crontab=berlin, last_run_at=NOON - timedelta(days=1), date_changed=NOON - timedelta(days=9))
    late = overdue_since(task, now=NOON)
    assert late is not None
    assert f"{late:%d %H:%M}" == "02 05:00"  # 6 in the morning there in November
    task.last_run_at = NOON - timedelta(hours=6)
    assert overdue_since(task, now=NOON) is None


def test_the_list_of_schedules_says_when_in_words_what_came_of_it_and_what_is_late(
    browser: Client, group: FeatureGroup
) -> None:
    daily = CrontabSchedule.objects.create(minute="30", hour="4", timezone="Europe/Berlin")
    PeriodicTask.objects.create(name="scrubbing", task="t", crontab=daily, enabled=False)
    task = group.schedule
    assert task is not None
    PeriodicTask.objects.filter(pk=task.pk).update(
        date_changed=timezone.now() - timedelta(days=2), last_run_at=timezone.now() - timedelta(hours=3)
    )
    url = page("periodictask", app="django_celery_beat")
    shown = text_of(browser.get(url))
    for words in ("every hour", "At 04:30", "Europe/Berlin", "overdue since", "</span>off"):
        assert words in shown, words
    run = Run.queue(group, requested_by="schedule")
    shown = text_of(browser.get(url))
    assert page("run", "change", run.pk) in shown
    assert "overdue since" not in shown
    assert page("run", "change", run.pk) in text_of(
        browser.get(page("periodictask", "change", task.pk, app="django_celery_beat"))
    )


def test_a_task_is_added_and_shows_its_next_times(browser: Client, group: FeatureGroup) -> None:
    schedule = IntervalSchedule.objects.get()
    sent = {"name": "nightly", "task": "ingest", "interval": schedule.pk, "enabled": "on"}
    sent |= {"args": "[]", "kwargs": "{}", "headers": "{}"}
    url = page("periodictask", "add", app="django_celery_beat")
    response = browser.post(url, sent)
    assert response.status_code == 302, errors_of(response)
    made = PeriodicTask.objects.get(name="nightly")
    text = text_of(browser.get(page("periodictask", "change", made.pk, app="django_celery_beat")))
    assert len(re.findall(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d UTC", text)) == 3


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(hours=36), "36h"),
        (timedelta(minutes=90), "90m"),
        (timedelta(seconds=61), "61s"),
        (timedelta(seconds=1.5), "00:00:01.500000"),
    ],
)
def test_a_duration_is_written_and_read_in_its_largest_whole_unit(duration: timedelta, text: str) -> None:
    assert duration_text(duration) == text
    assert parse_duration_text(text) == duration


@pytest.mark.parametrize("text", ["", "soon", "5", "5w", "-1d", "36501d", "9999999999d", "99999999999999999 00:00:00"])
def test_what_is_no_duration_is_not_read_as_one(text: str) -> None:
    assert parse_duration_text(text) is None
