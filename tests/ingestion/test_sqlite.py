"""SQLite's own faults: many writers at once, a lock that is kept, a disk that fills up, writers that are killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client

from catalog import access
from catalog.models import FeatureGroup
from ingestion.models import PushBatch
from ingestion.push_rows import rows_of
from tests.factories import make_customer_group, purchase
from tests.ingestion.processes import run_python
from tests.ingestion.web import ROWS, Start

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="about SQLite"),
]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def pushed_customers() -> set[str]:
    return {customer for batch in PushBatch.objects.all() for customer in rows_of(batch)["customer_id"]}


def push_all(key: str, customers: list[str]) -> list[tuple[int, str, Any]]:
    """Each customer pushed by a thread of its own, all at once: status, Retry-After and document of each answer."""
    start = threading.Barrier(len(customers))

    def push_one(customer: str) -> tuple[int, str, Any]:
        client = Client(headers={"Authorization": f"Bearer {key}"}, raise_request_exception=False)
        start.wait()
        try:
            answer = client.post(ROWS, {"rows": [purchase(customer)]}, content_type="application/json")
            return answer.status_code, answer.headers.get("Retry-After", ""), answer.json()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(customers)) as threads:
        return list(threads.map(push_one, customers))


def test_sixteen_writers_wait_for_each_other_and_after_a_while_for_nobody(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = access.create_key(name="writer", scopes=["write"])
    first, refused, last = ([f"{name}{number}" for number in range(16)] for name in "ABC")
    assert {status for status, _, _ in push_all(key, first)} == {200}
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 0.3)
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answers = push_all(key, refused)
    assert {(status, after, problem["code"]) for status, after, problem in answers} == {(503, "1", "unavailable")}
    assert {problem["detail"] for *_, problem in answers} == {"The database is busy with other writes; try again."}
    monkeypatch.undo()
    assert {status for status, _, _ in push_all(key, last)} == {200}
    assert pushed_customers() == {*first, *last}


KILLED_WRITERS = """
import os, random, signal, time
import django
django.setup()
from django.db import connection
from ingestion.push import find_group, push
from tests.factories import purchase

def write(round, said):
    # Forked before Polars was used: a process that has used it cannot be forked.
    group, number = find_group("customer_purchases"), 0
    while True:
        names = [f"K{round}-{number}-{row}" for row in range(20)]
        push(group, [purchase(name) for name in names])
        os.write(said, (" ".join(names) + "\\n").encode())
        number += 1

moments = random.Random(20)
for round in range(20):
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        write(round, said)
    os.close(said)
    print(os.read(heard, 1 << 16).decode())  # it is at it
    time.sleep(moments.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(open(heard).read())
    found = connection.cursor().execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert found == ("ok",), found
"""


def test_a_writer_killed_twenty_times_leaves_a_sound_database_with_all_that_it_acknowledged(
    group: FeatureGroup,
) -> None:
    done = run_python(KILLED_WRITERS)
    assert done.returncode == 0, done.stderr
    acknowledged = set(done.stdout.split())
    assert {name.partition("-")[0] for name in acknowledged} == {f"K{round}" for round in range(20)}
    kept = pushed_customers()
    assert acknowledged <= kept
    assert len(kept) % 20 == 0  # a push is kept as a whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not (mount and unmount) or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run([unmount, "--lazy", str(folder)], check=True)


def test_on_a_full_disk_pushes_are_refused_reads_go_on_and_with_space_pushes_do_too(
    group: FeatureGroup, start: Start, small_disk: Path
) -> None:
    database, filler = small_disk / "hub.sqlite3", small_disk / "filler"
    _, reader = access.create_key(name="a reader whom the server has not seen", scopes=["read"])
    with connection.cursor() as cursor:  # without the pages that other tests have left empty, which would fill the disk
        cursor.execute("VACUUM INTO %s", [str(database)])
    filler.write_bytes(bytes(1 << 20))
    web = start(DATABASE_URL=f"sqlite:///{database}")
    acknowledged, answer = [], (200, None, None)
    for number in range(200):
        customers = [f"C{number}-{row}" for row in range(300)]
        answer = web.ask("POST", ROWS, json.dumps({"rows": [purchase(customer) for customer in customers]}).encode())
        if answer[0] != 200:
            break
        acknowledged += customers
    status, headers, problem = answer
    assert (status, headers["Retry-After"], problem["code"]) == (503, "1", "unavailable")
    assert problem["detail"] == "The database's disk is full: nothing can be written until it has space again."
    for key in (web.key, reader):
        read = web.ask("GET", "/features/customer/C0-0?features=total_purchases", Authorization=f"Bearer {key}")
        assert (read[0], read[2]) == (200, {"total_purchases": 4})
    os.unlink(filler)
    assert web.post(json.dumps({"rows": [purchase("last")]}).encode())[0] == 200
    with closing(sqlite3.connect(database)) as found:
        found.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, text) is not None)  # in constraints
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = found.execute("SELECT sum(row_count) FROM ingestion_pushbatch").fetchone()
    assert kept == (len(acknowledged) + 1,)
