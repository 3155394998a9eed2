"""The RSGI application that granian loads."""

from __future__ import annotations

import sys

from featurehub.wsgi import application as wsgi_application  # first, since it sets Django up

from featurehub.event_loop import Application  # isort: skip

#: For how long a thread keeps the interpreter to itself while the event loop waits for it; Python's own 5 ms would be
#: most of a read's time, for each of its steps.
SECONDS_OF_A_THREAD = 0.0005

sys.setswitchinterval(SECONDS_OF_A_THREAD)
application = Application(wsgi_application)
