"""A load at an even pace, whatever becomes of the requests before: in a process of its own, so that it keeps its pace.

python -m tests.featurehub.open_loop PORT PER_SECOND SECONDS < the request's bytes        prints a JSON line per request
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
#: Whoever has no answer by then has gone away.
SECONDS_TO_ANSWER = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was due and when it was answered (seconds from the load's start), with what status.

    status: 0 for a connection that was refused, reset or closed without an answer, -1 for none in time.
    """

    due: float
    seconds: float
    status: int
    says_when: bool


async def _ask(port: int, request: bytes) -> tuple[int, bool]:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, False
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(head.split()[1]), b"retry-after" in fields
    except (OSError, asyncio.IncompleteReadError):
        return 0, False
    finally:
        writer.close()


async def _timed(port: int, request: bytes, due: float, began: float) -> Asked:
    try:
        status, says_when = await asyncio.wait_for(_ask(port, request), SECONDS_TO_ANSWER)
    except TimeoutError:
        status, says_when = -1, False
    return Asked(due, time.perf_counter() - began - due, status, says_when)


async def _load(port: int, request: bytes, per_second: float, seconds: float) -> list[Asked]:
    began, sent = time.perf_counter(), []
    for number in range(int(per_second * seconds)):
        due = number / per_second
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        sent.append(asyncio.create_task(_timed(port, request, due, began)))
    return await asyncio.gather(*sent)


def offered(port: int, request: bytes, *, per_second: float, seconds: float) -> list[Asked]:
    """What became of each request of a load that a process of its own has sent."""
    arguments = [str(port), str(per_second), str(seconds)]
    command = [sys.executable, "-m", "tests.featurehub.open_loop", *arguments]
    done = subprocess.run(command, cwd=PROJECT, input=request, capture_output=True, check=True)
    return [Asked(*json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    port, per_second, seconds = sys.argv[1:]
    for one in asyncio.run(_load(int(port), sys.stdin.buffer.read(), float(per_second), float(seconds))):
        print(json.dumps([one.due, one.seconds, one.status, one.says_when]))


if __name__ == "__main__":
    main()
