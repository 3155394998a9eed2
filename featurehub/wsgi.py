"""The whole hub as a WSGI application, behind the event loop (rsgi.py) or for a server that knows no other."""

from __future__ import annotations

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")

django_application = get_wsgi_application()

from catalog import background  # noqa: E402  it needs Django set up
from serving.hot_path import HotPath  # noqa: E402  the same

application = HotPath(django_application)
# What is loaded by now, the pages' code too, stays as long as the process: the collector does not look through it again
# and again, which was half of the slowest requests' time.
routes = get_resolver().url_patterns  # loaded when it is asked for
gc.collect()
gc.freeze()
background.start()
