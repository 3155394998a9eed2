"""The WSGI application that a server such as granian loads."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")

django_application = get_wsgi_application()

from catalog import background  # noqa: E402  it needs Django set up
from featurehub.admission import Admission, refuse  # noqa: E402  the same
from serving.hot_path import HotPath  # noqa: E402  the same

application = Admission(HotPath(django_application), refuse)
background.start()
