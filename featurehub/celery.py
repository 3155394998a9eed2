"""The Celery app; its settings are the CELERY_ ones of Django's."""

from __future__ import annotations

import os

from celery import Celery

from featurehub.broker import outlive_the_broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")

outlive_the_broker()
app = Celery("featurehub")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
