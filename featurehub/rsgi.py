"""The RSGI application that granian loads."""

from __future__ import annotations

from featurehub.wsgi import application as wsgi_application  # first, since it sets Django up

from featurehub.event_loop import Application  # isort: skip

application = Application(wsgi_application)
