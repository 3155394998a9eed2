"""Reviews of drafts: who may answer one, what an approval is of, and what does not become active without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from engine.errors import Conflict, NotAllowed
from tests.catalog.registry.conftest import Asking, holder, person

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NEW = {"group": "customer_purchases", "name": "is_new", "dtype": "bool", "status": "draft"}
NEW |= {"transformation": {"expression": "total_purchases = 1"}}
PATH = "features/customer_purchases/is_new"


@pytest.fixture
def group() -> Any:
    """An active group that needs reviews, with one draft feature that nobody known made."""
    from tests.factories import add_feature, make_customer_group

    made = make_customer_group(needs_review=True)
    draft = add_feature(made, "is_new", "bool", expression="total_purchases = 1")
    draft.status = "draft"
    draft.save()
    return made


@pytest.fixture
def draft(group: Any) -> Any:
    return group.features.get(name="is_new")


def user(name: str) -> Any:
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username=name, defaults={"is_superuser": True, "is_staff": True})[0]


def activate(thing: Any) -> None:
    from catalog.lifecycle import change_status

    change_status(thing, "active")


# -- What needs a review


def test_a_draft_becomes_active_only_by_an_approval_that_activates_it(draft: Any) -> None:
    from catalog import reviews

    with pytest.raises(Conflict, match=r"customer_purchases wants a review first.*`lifecycle request-review feature"):
        activate(draft)
    asked = reviews.request_review(draft, by=user("ada"), note="For the churn model.")
    with pytest.raises(Conflict, match=f"waits for an answer to review {asked.pk}, which ada asked for"):
        activate(draft)
    done = reviews.approve(draft, by=user("bob"), comment="Fine.")
    draft.refresh_from_db()
    assert (draft.status, done.state, done.answered_by_name, done.comment) == ("active", "approved", "bob", "Fine.")
    newest = draft.history.first()
    assert (newest.history_user.username, newest.history_change_reason) == ("bob", f"active by bob review {asked.pk}")


def test_without_the_switch_no_review_is_needed_and_one_may_be_asked_for(group: Any, draft: Any) -> None:
    from catalog import reviews

    group.needs_review = False
    group.save()
    reviews.request_review(draft, by=user("ada"))
    draft.description = "New ones."
    draft.save()
    with pytest.raises(Conflict, match="was changed since review"):  # what was looked at is not what it is now
        reviews.approve(draft, by=user("bob"))
    activate(draft)
    draft.refresh_from_db()
    assert draft.status == "active"


def test_an_approval_is_void_once_the_definition_was_changed(group: Any) -> None:
    """The group is approved but not activated: its activation is refused after a change of one of its features."""
    from catalog import reviews
    from catalog.approvals import fingerprint_of
    from catalog.models import FeatureGroup, ReviewRequest

    FeatureGroup.objects.filter(pk=group.pk).update(status="draft")
    group.refresh_from_db()
    asked = reviews.request_review(group, by=user("ada"))
    ReviewRequest.objects.filter(pk=asked.pk).update(answer="approved", answered_at=asked.asked_at)
    feature = group.features.first()
    feature.description = "Another one."
    feature.save()
    with pytest.raises(Conflict, match=f"was changed since review {asked.pk}"):
        activate(group)
    feature.description = ""
    feature.save()
    assert fingerprint_of(group) == asked.definition
    activate(group)
    group.refresh_from_db()
    assert group.status == "active"


@pytest.mark.parametrize("key", ["description", "dtype", "expression", "validation", "tags"])
def test_whatever_a_file_says_of_a_feature_is_what_was_approved(draft: Any, key: str) -> None:
    from catalog import reviews
    from catalog.models import Tag

    reviews.request_review(draft, by=user("ada"))
    if key == "tags":
        draft.tags.add(Tag.objects.create(name="new"))
    else:
        values = {"dtype": "int64", "expression": "total_purchases = 2", "validation": {"not_null": True}}
        setattr(draft, key, values.get(key, "x"))
        draft.save()
    with pytest.raises(Conflict, match="was changed since review"):
        reviews.approve(draft, by=user("bob"))
    again = reviews.request_review(draft, by=user("ada"))
    assert [r.state for r in reviews.reviews_of(draft)] == ["withdrawn", "open"]
    assert reviews.approve(draft, by=user("cyn")).pk == again.pk


def test_a_status_and_a_schedule_are_no_part_of_what_was_approved(group: Any) -> None:
    from catalog.approvals import fingerprint_of

    before = fingerprint_of(group)
    group.needs_review, group.status = False, "draft"
    group.save()
    assert fingerprint_of(group) == before
    group.event_timestamp = "bought_at"
    group.save()
    assert fingerprint_of(group) != before


def test_what_was_archived_as_a_draft_does_not_get_around_the_review(draft: Any) -> None:
    from catalog.lifecycle import change_status

    change_status(draft, "archived")
    with pytest.raises(Conflict, match="wants a review first"):
        activate(draft)


def test_what_was_active_before_comes_back_without_a_review(group: Any) -> None:
    from catalog.lifecycle import change_status, undo

    segment = group.features.get(name="customer_segment")
    change_status(segment, "archived")
    activate(segment)
    change_status(segment, "archived")
    undo(segment)
    segment.refresh_from_db()
    assert segment.status == "active"


def test_a_service_that_reads_a_group_with_reviews_needs_one_too(group: Any) -> None:
    from catalog import reviews
    from catalog.models import FeatureService

    service = FeatureService.objects.create(name="churn", status="draft")
    service.chosen.create(feature=group.features.get(name="total_purchases"), position=0)
    with pytest.raises(Conflict, match="request-review service churn@1"):
        activate(service)
    reviews.request_review(service, by=user("ada"))
    reviews.approve(service, by=user("bob"))
    service.refresh_from_db()
    assert service.status == "active"


# -- Who may answer


def test_who_asked_does_not_answer_neither_with_a_key_of_their_own(draft: Any) -> None:
    from catalog import keys, reviews

    reviews.request_review(draft, by=user("ada"))
    with pytest.raises(NotAllowed, match="ada asked for review"):
        reviews.approve(draft, by=user("ada"))
    for owner, fits in (("ada", False), ("bob", True)):
        made, text = keys.create_key(name=f"of_{owner}", scopes=["registry"], owner=user(owner))
        caller = keys.caller_of(text)
        if fits:
            assert reviews.decline(draft, by=caller).answered_by == f"key:{made.public_id}"
        else:
            with pytest.raises(NotAllowed, match="somebody else answers"):
                reviews.decline(draft, by=caller)


def test_who_made_the_last_change_does_not_answer_though_somebody_else_asked(draft: Any) -> None:
    from catalog import reviews

    draft._history_user, draft.description = user("ada"), "New ones."
    draft.save()
    reviews.request_review(draft, by=user("bob"))
    with pytest.raises(NotAllowed, match="ada made the last change of customer_purchases:is_new"):
        reviews.approve(draft, by=user("ada"))
    assert reviews.approve(draft, by=user("cyn")).state == "approved"


def test_a_change_of_the_status_alone_makes_nobody_the_author(draft: Any) -> None:
    from catalog.approvals import author_of
    from catalog.lifecycle import change_status

    draft._history_user, draft.description = user("ada"), "New ones."
    draft.save()
    draft._history_user = user("bob")
    change_status(draft, "archived")
    assert author_of(draft) == f"user:{user('ada').pk}"


def test_the_author_of_a_group_is_who_last_changed_anything_of_it(group: Any) -> None:
    from catalog.approvals import author_of

    group._history_user, group.description = user("ada"), "Totals."
    group.save()
    assert author_of(group) == f"user:{user('ada').pk}"
    column = group.inputs.first()
    column._history_user, column.dtype = user("bob"), "int64"
    column.save()
    assert author_of(group) == f"user:{user('bob').pk}"
    gone = group.features.get(name="customer_segment")
    gone._history_user = user("cyn")
    gone.delete()
    assert author_of(group) == f"user:{user('cyn').pk}"


def test_only_one_review_of_a_thing_is_open_and_only_of_a_draft(group: Any, draft: Any) -> None:
    from catalog import reviews

    reviews.request_review(draft, by=user("ada"))
    with pytest.raises(Conflict, match="waits for an answer"):
        reviews.request_review(draft, by=user("bob"))
    with pytest.raises(Conflict, match="is no draft"):
        reviews.request_review(group, by=user("ada"))
    reviews.withdraw(draft, by=user("ada"), comment="Not yet.")
    with pytest.raises(Conflict, match="No review of customer_purchases:is_new is asked for"):
        reviews.approve(draft, by=user("bob"))


def test_an_approval_that_the_lifecycle_refuses_is_none(draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is taken back with it."""
    from catalog import reviews

    reviews.request_review(draft, by=user("ada"))

    def fail(*args: Any, **kwargs: Any) -> None:
        raise Conflict("no")

    monkeypatch.setattr(reviews, "change_status", fail)
    with pytest.raises(Conflict, match="no"):
        reviews.approve(draft, by=user("bob"))
    waiting = reviews.open_review(draft)
    assert waiting is not None
    assert waiting.state == "open"


# -- Over HTTP


@pytest.fixture
def ci(group: Any) -> Asking:
    from catalog import keys

    keys.forget()
    return holder("read", "registry")


def test_a_review_goes_its_way_over_http(ci: Asking) -> None:
    assert "request-review" in ci.post(f"{PATH}/activate").document["detail"]
    asked = ci.post(f"{PATH}/request-review", {"note": "Please."})
    assert (asked.status, asked.document["state"], asked.document["note"]) == (200, "open", "Please.")
    refused = ci.post(f"{PATH}/approve")
    assert (refused.status, refused.document["code"]) == (403, "not_allowed")
    other = person("bob", is_superuser=True)
    listed = other.get("reviews?state=open").document["results"]
    assert [(r["kind"], r["name"], r["asked_by"], r["is_of_present_definition"]) for r in listed] == [
        ("feature", "customer_purchases:is_new", "ci", True)
    ]
    done = holder("read", "registry", name="other").post(f"{PATH}/approve", {"comment": "Good."})
    assert (done.status, done.document["state"], done.document["answered_by"]) == (200, "approved", "other")
    assert ci.get(PATH).document["status"] == "active"
    assert ci.get("reviews?state=open").document["results"] == []
    assert ci.post(f"{PATH}/decline").status == 409


def test_reviews_are_listed_in_pages_of_what_the_caller_reads(ci: Asking) -> None:
    from catalog import reviews
    from catalog.models import Feature
    from tests.factories import make_customer_group

    make_customer_group("support", features={"tickets": "int64"}, status="draft")
    for name in ("is_new", "tickets"):
        reviews.request_review(Feature.objects.get(name=name), by=user("ada"))
    first = ci.get("reviews?limit=1").document
    assert [r["name"] for r in first["results"]] == ["customer_purchases:is_new"]
    following = ci.get(first["next"].partition("/registry/")[2]).document
    assert [r["name"] for r in following["results"]] == ["support:tickets"]
    limited = holder("read", groups=["support"])
    assert [r["name"] for r in limited.get("reviews").document["results"]] == ["support:tickets"]
    assert ci.get("reviews?state=opne").status == 400
    assert ci.post(f"{PATH}/approve", {"note": "x"}).status == 422


def test_no_key_and_no_editor_turns_reviews_off(ci: Asking) -> None:
    refused = ci.edit("feature-groups/customer_purchases", {"needs_review": False})
    assert (refused.status, "needs_review" in refused.document["detail"]) == (403, True)
    boss = person("boss", is_superuser=True)
    assert boss.edit("feature-groups/customer_purchases", {"needs_review": False}).document["needs_review"] is False


def test_what_is_new_begins_as_a_draft_over_http(ci: Asking) -> None:
    new = {**NEW, "name": "is_old"}
    refused = ci.post("features", {key: value for key, value in new.items() if key != "status"})
    assert (refused.status, "begin with `status: draft`" in refused.document["detail"]) == (409, True)
    assert ci.post("features", new).document["effective_status"] == "draft"
    assert ci.edit("features/customer_purchases/is_old", {"status": "active"}).status == 409


# -- In a file


def test_the_switch_is_planned_applied_and_exported(tmp_path: Path, group: Any) -> None:
    from catalog import definitions

    path = tmp_path / "shop.yaml"
    path.write_text(definitions.export())
    assert "needs_review: true" in path.read_text()
    assert definitions.plan([path]).changes == ()
    path.write_text(path.read_text().replace("  needs_review: true\n", ""))
    (change,) = definitions.apply([path]).changes
    assert [str(field) for field in change.fields] == ["needs_review: true -> (default)"]
    group.refresh_from_db()
    assert group.needs_review is False


def test_a_file_that_activates_a_draft_is_refused_with_what_to_do_and_changes_nothing(
    tmp_path: Path, group: Any, draft: Any
) -> None:
    from catalog import definitions, reviews

    path = tmp_path / "shop.yaml"
    text = definitions.export()
    path.write_text(text.replace("status: draft", "status: active").replace("not_null: true", "not_null: false"))
    with pytest.raises(Conflict, match=r"customer_purchases wants a review first.*request-review"):
        definitions.apply([path])
    assert definitions.export() == text
    path.write_text(text.replace("status: draft", "status: active"))
    reviews.request_review(draft, by=user("ada"))
    reviews.approve(draft, by=user("bob"))
    assert definitions.apply([path]).changes == ()


def test_a_file_with_something_new_that_is_served_at_once_is_refused(tmp_path: Path, group: Any) -> None:
    from catalog import definitions
    from catalog.models import FeatureGroup

    path = tmp_path / "new.yaml"
    path.write_text(
        "feature_groups:\n- {name: returns, entity: customer, needs_review: true, status: active,"
        " features: [{name: count, dtype: int64}]}\n"
    )
    with pytest.raises(Conflict, match=r"returns.*begin with `status: draft`"):
        definitions.apply([path])
    assert not FeatureGroup.objects.filter(name="returns").exists()
    path.write_text(path.read_text().replace("active", "draft"))
    definitions.apply([path])
    path.write_text(
        "feature_services:\n- {name: churn, version: 1, features: ['customer_purchases:total_purchases']}\n"
    )
    with pytest.raises(Conflict, match="churn@1 is new, and customer_purchases wants a review first"):
        definitions.apply([path])


# -- The command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed on both streams."""
    try:
        call_command("lifecycle", *arguments)
        code = 0
    except SystemExit as ended:
        code = int(str(ended.code))
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_command_asks_for_a_review_and_a_person_approves(capsys: pytest.CaptureFixture[str], draft: Any) -> None:
    name = "customer_purchases:is_new"
    assert run(capsys, "activate", "feature", name)[0] == 1
    code, said = run(capsys, "request-review", "feature", name, "--reason", "Please.", "--json")
    assert (code, json.loads(said)["state"]) == (0, "open")
    code, said = run(capsys, "approve", "feature", name)
    assert (code, "somebody else answers it" in said) == (1, True)
    user("bob")
    code, said = run(capsys, "approve", "feature", name, "--by", "bob")
    assert (code, "is approved." in said) == (0, True)
    draft.refresh_from_db()
    assert draft.status == "active"


def test_the_command_does_with_a_persons_rights_only_what_these_allow(
    capsys: pytest.CaptureFixture[str], draft: Any
) -> None:
    from django.contrib.auth.models import User

    User.objects.create(username="nobody")
    code, said = run(capsys, "archive", "feature", "customer_purchases:is_new", "--by", "nobody")
    assert (code, "There is no feature named" in said) == (1, True)
    assert "Nobody has the login 'ghost'" in run(capsys, "archive", "group", "customer_purchases", "--by", "ghost")[1]


def test_the_command_shows_who_is_hit_and_deprecates_and_takes_it_back(
    capsys: pytest.CaptureFixture[str], group: Any
) -> None:
    name = "customer_purchases:total_purchases"
    code, said = run(capsys, "impact", "feature", name)
    assert code == 0
    computed = "customer_purchases:avg_purchase_value, customer_purchases:is_new"
    assert f"features computed from it: {computed}\n" in said
    how = [
        "--reason",
        "Old.",
        "--replaced-by",
        "customer_purchases:customer_segment",
        "--sunset",
        "2040-01-01T00:00:00Z",
    ]
    code, said = run(capsys, "deprecate", "feature", name, *how, "--dry-run")
    assert (code, said.splitlines()[0]) == (0, "active -> deprecated")
    assert run(capsys, "deprecate", "feature", name, *how) == (0, f"{name} is deprecated.\n")
    told = json.loads(run(capsys, "undo", "feature", name, "--dry-run", "--json")[1])
    assert (told["from"], told["to"], told["refused"]) == ("deprecated", "active", None)
    assert run(capsys, "undo", "feature", name) == (0, f"{name} is active.\n")
    code, said = run(capsys, "deprecate", "group", "customer_purchases", "--replaced-by", name)
    assert (code, "belong to a feature that is deprecated" in said) == (1, True)
    newest = group.features.get(name="total_purchases").history.first()
    assert newest.history_change_reason.startswith("undo, active by shell ")


def test_a_dry_run_of_what_would_be_refused_exits_1(capsys: pytest.CaptureFixture[str], draft: Any) -> None:
    code, said = run(capsys, "activate", "feature", "customer_purchases:is_new", "--dry-run")
    assert (code, "refused: " in said) == (1, True)
    draft.refresh_from_db()
    assert draft.status == "draft"
