"""Who is told of what happens in the catalog, what they see of it, and that an event is told once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from engine.errors import Conflict, NotAllowed, StillRead

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOON = datetime(2024, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def group() -> Any:
    from tests.factories import make_customer_group

    return make_customer_group()


@pytest.fixture
def ada() -> User:
    return User.objects.create(username="ada", is_superuser=True)


def viewer(name: str, *groups: Any) -> User:
    """Somebody who may read these groups, by a role of their team."""
    from catalog.models import GroupRole, Owner, Role

    person, team = User.objects.create(username=name), Owner.objects.create(name=f"team_{name}")
    team.members.add(person)
    for group in groups:
        GroupRole.objects.create(group=group, team=team, role=Role.VIEWER)
    return person


def read_again(person: User) -> User:
    """The person as the next request reads them, with the roles they have then."""
    return User.objects.get(pk=person.pk)


def service_of(*features: Any, name: str = "churn") -> Any:
    from catalog.models import FeatureService

    made = FeatureService.objects.create(name=name)
    for position, feature in enumerate(features):
        made.chosen.create(feature=feature, position=position)
    return made


def tell(thing: Any, key: str = "k") -> Any:
    from catalog import follows
    from catalog.models import NoticeKind

    return follows.tell(NoticeKind.STALE, thing, f"{thing} is stale.", key=key)


def told(person: User) -> list[tuple[str, str]]:
    """The kind and the text of each notice, the newest first."""
    from catalog.follows import inbox

    return [(entry.notice.kind, entry.notice.text) for entry in inbox(read_again(person))]


# -- Following.


def test_to_follow_and_to_unfollow_each_kind_of_thing(group: Any, ada: User) -> None:
    from catalog.follows import follow, followers, is_following, unfollow

    feature = group.features.first()
    things = [feature, group, service_of(feature), group.entity]
    for thing in things:
        assert not is_following(ada, thing)
        follow(ada, thing)
        follow(ada, thing)  # twice is once
        assert is_following(ada, thing)
        assert list(followers(thing)) == [ada]
    assert ada.follows.count() == 4
    for thing in things:
        unfollow(ada, thing)
        unfollow(ada, thing)
        assert not is_following(ada, thing)
    assert ada.follows.count() == 0


def test_what_somebody_may_not_read_they_cannot_follow(group: Any) -> None:
    from catalog.follows import follow, is_following, unread_count

    for person in (viewer("bob"), AnonymousUser()):
        with pytest.raises(NotAllowed):
            follow(person, group)
        assert (is_following(person, group), unread_count(person)) == (False, 0)


def test_followers_are_the_active_people_who_follow_the_thing_itself(group: Any, ada: User) -> None:
    from catalog.follows import follow, followers

    bob, gone = viewer("bob", group), viewer("gone", group)
    for person in (bob, ada, gone):
        follow(person, group)
    User.objects.filter(pk=gone.pk).update(is_active=False)
    assert list(followers(group)) == [ada, bob]
    assert not followers(group.features.first()).exists()


# -- Who is told.


def test_an_event_is_told_to_those_who_follow_the_thing_or_what_stands_or_falls_with_it(group: Any) -> None:
    from catalog.follows import concerned, follow
    from tests.factories import make_customer_group

    first, second = group.features.all()[:2]
    other = make_customer_group("other")
    archived = service_of(first, name="archived")
    things = {
        "first": first,
        "second": second,
        "group": group,
        "entity": group.entity,
        "service_of_first": service_of(first, name="one"),
        "service_of_second": service_of(second, name="two"),
        "archived": archived,
        "other": other,
        "other_feature": other.features.first(),
    }
    for name, thing in things.items():
        follow(User.objects.create(username=name, is_superuser=True), thing)
    archived.status = "archived"
    archived.save()
    assert {user.username for user in concerned(first)} == {"first", "group", "entity", "service_of_first"}
    assert {user.username for user in concerned(group)} == {
        *("first", "second", "group", "entity"),
        *("service_of_first", "service_of_second"),
    }
    assert {user.username for user in concerned(things["service_of_first"])} == {"service_of_first"}
    assert {user.username for user in concerned(group.entity)} == {"entity"}


def test_an_event_is_told_once_and_once_to_each(group: Any, ada: User) -> None:
    from catalog.follows import follow, unread_count

    for thing in (group, group.entity, group.features.first()):
        follow(ada, thing)
    assert tell(group) is not None
    assert tell(group) is None
    assert told(ada) == [("stale", "customer_purchases is stale.")]
    late = viewer("late", group)
    follow(late, group)
    assert tell(group) is None  # what was told before they followed is not told again
    assert (told(late), unread_count(ada)) == ([], 1)


@pytest.mark.django_db(transaction=True)
def test_of_processes_that_find_one_event_one_tells_it(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.models import Inbox

    follow(ada, group)
    together, answers = threading.Barrier(4), []

    def find() -> None:
        together.wait()
        answers.append(tell(group))
        connection.close()

    finders = [threading.Thread(target=find) for _ in range(4)]
    for finder in finders:
        finder.start()
    for finder in finders:
        finder.join()
    assert len(answers) == 4
    assert len([answer for answer in answers if answer]) == 1
    assert Inbox.objects.count() == 1


def test_who_may_not_read_the_thing_any_more_is_not_told_and_does_not_see_what_was_told(group: Any) -> None:
    from catalog.follows import follow, unread_count
    from catalog.models import GroupRole, Inbox

    bob = viewer("bob", group)
    follow(bob, group)
    tell(group, "before")
    assert (len(told(bob)), unread_count(read_again(bob))) == (1, 1)
    GroupRole.objects.all().delete()
    tell(group, "after")
    assert (told(bob), unread_count(read_again(bob))) == ([], 0)
    assert Inbox.objects.count() == 1


def test_of_each_kind_of_thing_only_what_may_be_read_is_seen(group: Any) -> None:
    from catalog.follows import follow
    from tests.factories import make_customer_group, make_entity

    other = make_customer_group("other")
    bob = viewer("bob", group, other)
    mine, theirs = group.features.first(), other.features.first()
    things = [mine, theirs, group, other, service_of(mine, theirs), group.entity, make_entity("shop", {"id": "int64"})]
    for thing in things:
        follow(bob, thing)
        tell(thing, f"of {thing} itself")
    # Services and entities are shared words: whoever has a role in any group may read them.
    assert {text for _, text in told(bob)} == {f"{thing} is stale." for thing in things}
    other.roles.all().delete()
    assert {text for _, text in told(bob)} == {f"{thing} is stale." for thing in things if thing not in (theirs, other)}
    group.roles.all().delete()
    assert told(bob) == []


@pytest.mark.parametrize("ended", ["deactivated", "deleted"])
def test_who_is_gone_is_told_nothing(group: Any, ended: str) -> None:
    from catalog.follows import follow, unread_count
    from catalog.models import Follow, Inbox

    bob = viewer("bob", group)
    follow(bob, group)
    tell(group, "before")
    if ended == "deleted":
        bob.delete()
        assert not Follow.objects.exists()
        assert not Inbox.objects.exists()
    else:
        User.objects.filter(pk=bob.pk).update(is_active=False)
        assert unread_count(read_again(bob)) == 0
    tell(group, "after")
    assert Inbox.objects.filter(notice__key="after").count() == 0


# -- The inbox.


def test_the_inbox_has_the_newest_first_and_marks_its_own_entries_as_read(group: Any, ada: User) -> None:
    from catalog.follows import follow, inbox, mark_read, unread_count

    bob = viewer("bob", group)
    for person in (ada, bob):
        follow(person, group)
    for key in ("first", "second", "third"):
        tell(group, key)
    assert [entry.notice.key for entry in inbox(ada)] == ["third", "second", "first"]
    newest, *_ = inbox(ada)
    (of_bob, *_) = inbox(bob)
    assert mark_read(ada, [newest.pk, of_bob.pk, 10**9]) == 1
    assert mark_read(ada, [newest.pk]) == 0
    assert [entry.read_at is not None for entry in inbox(ada)] == [True, False, False]
    assert (unread_count(ada), unread_count(bob)) == (2, 3)
    assert mark_read(ada, "all") == 2
    assert (unread_count(ada), unread_count(bob)) == (0, 3)


def test_counting_and_listing_are_a_query_each(
    group: Any, ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    from catalog.follows import follow, inbox, unread_count

    feature = group.features.first()
    follow(ada, group)
    for number in range(20):
        tell(group if number % 2 else feature, str(number))
    with django_assert_num_queries(1):
        assert unread_count(ada) == 20
    with django_assert_num_queries(1):
        assert {str(entry.notice.thing) for entry in inbox(ada)} == {"customer_purchases", str(feature)}


def test_notices_are_forgotten_after_ninety_days(group: Any, ada: User) -> None:
    from catalog.follows import follow, forget_old
    from catalog.models import Inbox, Notice

    follow(ada, group)
    for key, age in [("old", 91 * DAY), ("kept", 89 * DAY)]:
        tell(group, key)
        Notice.objects.filter(key=key).update(at=timezone.now() - age)
    assert forget_old() == 1
    assert [notice.key for notice in Notice.objects.all()] == ["kept"]
    assert Inbox.objects.count() == 1


# -- Statuses.


def test_a_deprecation_is_told_with_what_to_use_instead_and_until_when(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.lifecycle import change_status

    total, average = group.features.all()[:2]
    follow(ada, total)
    change_status(total, "deprecated", reason="ada@example.com said so", replaced_by=average, sunset=NOON)
    assert told(ada) == [
        (
            "deprecated",
            "customer_purchases:total_purchases is deprecated; use customer_purchases:avg_purchase_value instead; its "
            "sunset is on 2024-11-01.",
        )
    ]
    change_status(total, "deprecated", reason="still")  # it is so already
    assert len(told(ada)) == 1
    change_status(total, "active")
    change_status(total, "deprecated")
    assert told(ada)[0] == ("deprecated", "customer_purchases:total_purchases is deprecated.")
    assert len(told(ada)) == 2


def test_of_a_service_and_a_group_deprecating_and_archiving_are_told(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.lifecycle import change_status

    service = service_of(group.features.first())
    follow(ada, service)
    follow(ada, group)
    change_status(service, "archived")
    change_status(group, "deprecated")
    change_status(group, "archived")
    assert told(ada) == [
        ("archived", "customer_purchases is archived."),
        ("deprecated", "customer_purchases is deprecated."),
        ("archived", "churn@1 is archived."),
    ]


def test_a_change_that_is_refused_or_rolled_back_is_not_told(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.lifecycle import change_status
    from catalog.models import Notice

    total = group.features.first()
    service_of(total)
    follow(ada, group)
    with pytest.raises(StillRead):
        change_status(total, "archived")
    with pytest.raises(Conflict):
        change_status(group, "draft")

    class Undone(Exception):
        pass

    @transaction.atomic
    def change_and_undo() -> None:
        change_status(group, "deprecated")
        assert Notice.objects.count() == 1
        raise Undone

    with pytest.raises(Undone):
        change_and_undo()
    assert not Notice.objects.exists()


# -- Staleness.


def look(now: datetime = NOON) -> None:
    from catalog import notices

    notices.look(now=now)


def test_an_episode_of_staleness_is_told_once_and_a_newer_event_ends_it(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.freshness import observe

    group.freshness = DAY
    group.save()
    follow(ada, group)
    observe(group.pk, 1, NOON - DAY)
    look()
    assert told(ada) == []
    for minutes in (1, 2, 3):
        look(NOON + minutes * MINUTE)
    stale = ("stale", "customer_purchases is stale: its newest event is older than its freshness target.")
    assert told(ada) == [stale]
    observe(group.pk, 1, NOON - timedelta(hours=23))  # newer, and soon too old again
    look(NOON)
    look(NOON)
    fresh = ("fresh", "customer_purchases is fresh again.")
    assert told(ada) == [fresh, stale]
    observe(group.pk, 1, NOON - timedelta(hours=23) + MINUTE)
    look(NOON)
    assert told(ada) == [fresh, stale]  # it has been so since
    look(NOON + 2 * timedelta(hours=1))
    assert told(ada) == [stale, fresh, stale]


def test_a_group_that_withholds_everything_says_so(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.freshness import observe

    group.ttl = DAY
    group.save()
    follow(ada, group.entity)
    observe(group.pk, 1, NOON - 2 * DAY)
    look()
    text = "customer_purchases is stale: its newest event is older than its TTL, so that all it serves is withheld."
    assert told(ada) == [("stale", text)]


def test_a_group_whose_new_version_is_still_empty_is_not_told_to_be_fresh(group: Any, ada: User) -> None:
    from catalog.follows import follow
    from catalog.freshness import observe

    group.freshness = DAY
    group.save()
    follow(ada, group)
    observe(group.pk, 1, NOON - 2 * DAY)
    look()
    group.version = 2
    group.save()
    look()
    assert [kind for kind, _ in told(ada)] == ["stale"]
    observe(group.pk, 2, NOON)
    look()
    assert [kind for kind, _ in told(ada)] == ["fresh", "stale"]


def test_a_look_costs_the_same_however_many_groups_are_stale_that_were_told(
    group: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    from catalog.freshness import observe
    from tests.factories import make_customer_group

    for number in range(20):
        observe(make_customer_group(f"group_{number}", features={}, freshness=DAY).pk, 1, NOON - 2 * DAY)
    look()
    with django_assert_num_queries(6):
        look()


def test_the_look_is_a_row_among_the_schedules() -> None:
    from celery import current_app

    from catalog.tasks import tell

    (entry,) = [each for each in current_app.conf.beat_schedule.values() if each["task"] == tell.name]
    assert entry["schedule"] == 60.0
