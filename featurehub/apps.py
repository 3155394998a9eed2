"""The project as an app, so that the Celery app exists before any task is defined."""

from __future__ import annotations

from django.apps import AppConfig


class FeaturehubConfig(AppConfig):
    name = "featurehub"

    def ready(self) -> None:
        # Tasks bind to whichever Celery app exists; without this one they would silently take Celery's default.
        from featurehub import celery  # noqa: F401  imported for that effect
