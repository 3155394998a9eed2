"""Celery's way to the functions of this app."""

from __future__ import annotations

from celery import shared_task

from catalog import notices, publishing


@shared_task(name="catalog.tasks.publish")
def publish() -> None:
    """Every second: tell readers the catalog version of the database, in case a change could not."""
    publishing.publish()


@shared_task(name="catalog.tasks.tell")
def tell() -> None:
    """Every minute: tell followers of what nobody's doing has brought about, such as a group that has become stale."""
    notices.look()
