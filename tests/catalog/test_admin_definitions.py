"""Definitions files in the browser: export, import after a plan, drift."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from catalog import definitions
from catalog.models import AppliedDefinition, FeatureGroup
from tests.factories import make_customer_group

pytestmark = pytest.mark.django_db

IMPORT = "/admin/catalog/applieddefinition/import/"
DRIFT, EXPORT = IMPORT.replace("import", "drift"), IMPORT.replace("import", "export")


@pytest.fixture
def ada() -> Client:
    client = Client()
    client.force_login(User.objects.create(username="ada", is_superuser=True, is_staff=True))
    return client


@pytest.fixture
def group() -> FeatureGroup:
    return make_customer_group()


def text(response: HttpResponse) -> str:
    return unescape(response.content.decode())


def upload(browser: Client, content: str, **more: str) -> HttpResponse:
    file = SimpleUploadedFile("shop.yaml", content.encode())
    return browser.post(IMPORT, {"file": file, **more})


def confirmed(browser: Client, page: HttpResponse) -> HttpResponse:
    """What the page's Apply button sends."""
    html = page.content.decode()
    fields = re.findall(r'<input type="hidden" name="(\w+)"(?: value="(.*?)")?[^>]*>', html, re.DOTALL)
    sent = {name: unescape(value) for name, value in fields if name != "csrfmiddlewaretoken"}
    return browser.post(IMPORT, sent, follow=True)


def test_the_export_is_what_the_command_prints(ada: Client, group: FeatureGroup) -> None:
    answer = ada.get(EXPORT)
    assert answer.content.decode() == definitions.export()
    assert 'filename="definitions.yaml"' in answer["Content-Disposition"]


def test_an_upload_shows_its_plan_and_is_applied_once_that_is_confirmed(ada: Client, group: FeatureGroup) -> None:
    changed = definitions.export().replace("name: customer_purchases", "name: customer_purchases\n  ttl: 90d", 1)
    changed += "owners:\n- {name: growth}\n"
    before = definitions.export()
    page = upload(ada, changed)
    shown = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text(page)))
    assert "new: owner growth" in shown
    assert "changed: feature group customer_purchases ttl: (default) -> 90d" in shown
    assert definitions.export() == before
    assert not AppliedDefinition.objects.exists()
    assert "Applied: 2 changes." in text(confirmed(ada, page))
    group.refresh_from_db()
    assert (group.ttl is not None and group.ttl.days, group.history.first().history_change_reason) == (90, "import")
    assert group.history.first().history_user.username == "ada"
    assert AppliedDefinition.objects.get(kind="owner").file == "shop.yaml"


def test_what_was_confirmed_is_not_applied_when_it_would_change_something_else_by_now(
    ada: Client, group: FeatureGroup
) -> None:
    page = upload(ada, definitions.export() + "owners:\n- {name: growth}\n")
    group.description = "Changed meanwhile."
    group.save()
    again = confirmed(ada, page)
    assert "The catalog was changed since this plan was shown" in text(again)
    group.refresh_from_db()
    assert group.description == "Changed meanwhile."
    assert "Applied: 2 changes." in text(confirmed(ada, again))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("feature_groups:\n- {name: a, entty: b}\n", "entty"),
        ("a: [", "not YAML"),
        ("owners: &a []\n", "anchors and aliases are refused"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_and_nothing_is_offered(ada: Client, content: str, told: str) -> None:
    shown = text(upload(ada, content))
    assert told in shown
    assert "would be refused as a whole" in shown
    assert ">Apply<" not in re.sub(r"\s+", "", shown)


def test_what_a_file_leaves_out_is_archived_only_when_that_is_chosen(ada: Client, group: FeatureGroup) -> None:
    without = re.sub(r"  - name: customer_segment\n(    .*\n)+", "", definitions.export())
    shown = text(upload(ada, without))
    assert "apply --prune" in shown
    assert "would be refused as a whole" in shown
    page = ada.post(IMPORT, {"text": without, "name": "shop.yaml", "prune": "on"})  # what the page sends back
    assert "Applied: 1 changes." in text(confirmed(ada, page))
    assert group.features.get(name="customer_segment").status == "archived"


def test_no_file_and_a_file_that_is_no_text_are_refused_in_the_form(ada: Client) -> None:
    assert "Choose a file." in text(ada.post(IMPORT, {}))
    assert "It is not UTF-8 text." in text(ada.post(IMPORT, {"file": SimpleUploadedFile("a.yaml", b"\xff\xfe")}))


def test_drift_is_shown_on_its_page(ada: Client, group: FeatureGroup) -> None:
    assert "Nothing was applied from a file yet" in text(ada.get(DRIFT))
    confirmed(ada, upload(ada, definitions.export() + "owners:\n- {name: growth}\n"))
    assert "No drift" in text(ada.get(DRIFT))
    group.description = "Changed in the admin."
    group.save()
    assert "description: Changed in the admin. -> (default)" in text(ada.get(DRIFT))
    group.version = 2
    group.save()
    assert "has version 1 already" not in text(ada.get(DRIFT))
    assert "could not be applied again" in text(ada.get(DRIFT))


def test_who_may_import_is_still_asked_for_each_change(group: FeatureGroup) -> None:
    eve = User.objects.create(username="eve", is_staff=True)
    kind = Permission.objects.filter(content_type__model="applieddefinition")
    eve.user_permissions.set(kind.filter(codename__startswith="add_") | kind.filter(codename__startswith="view_"))
    browser = Client()
    browser.force_login(eve)
    shown = text(upload(browser, definitions.export() + "owners:\n- {name: growth}\n"))
    assert "eve" in shown
    assert "would be refused as a whole" in shown
    assert browser.get(EXPORT).status_code == 403
    assert browser.get(DRIFT).status_code == 403
