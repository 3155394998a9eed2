"""What a web process takes at once; for the command that starts it (embedded.py) and for itself (event_loop.py).

The Procfiles have the same numbers, and a test compares them.
"""

from __future__ import annotations

#: Requests that are worked at: more would only compete for the interpreter.
AT_WORK = 8
#: Requests that are taken, those that wait for the others included.
AT_ONCE = 32
#: How long one waits for its turn before it is refused.
SECONDS_TO_WAIT = 0.5
#: Connections, kept ones without a request included; further ones wait in the kernel. Below the 1,024 files that a
#: process may usually open.
CONNECTIONS = 512
