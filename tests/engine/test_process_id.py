"""A process that was forked is another one."""

from __future__ import annotations

import subprocess
import sys

FORKED = """
import os
from engine.process_id import process_id

assert process_id() == os.getpid()
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert process_id() == os.getpid()
"""


def test_a_forked_process_knows_its_own_id() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
