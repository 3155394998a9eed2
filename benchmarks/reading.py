"""Reading vectors in process: ours with plan, statuses and TTL, bare as MGET and a msgpack decode of each value.

python -m benchmarks.reading HOME        (a home into which benchmarks.ingestion has ingested)
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import msgspec
import redis

from benchmarks import hub
from benchmarks.data import FEATURES, GROUP, KEY

TIMES = 1_000


def main(home: Path, entities: int) -> None:
    with hub.opened(home) as url:
        from catalog import snapshot
        from serving import vectors

        plan = vectors.of_features([f"{GROUP}:{name}" for name in FEATURES])
        client, decode, random = redis.Redis.from_url(url), msgspec.msgpack.Decoder(list).decode, Random(3)
        figures = {}
        for count in (1, 100):
            columns = {KEY: [random.randrange(entities) for _ in range(count)]}
            read = vectors.read(plan, columns)
            assert {status for row in read.statuses for status in row} == {"PRESENT"}
            keys = vectors.redis_keys(plan(snapshot.current()), columns)
            work = {
                "ours": lambda columns=columns: vectors.read(plan, columns),
                "bare": lambda keys=keys: [decode(value[38:-4]) for value in client.mget(keys)],
            }
            figures[count] = {name: hub.median_milliseconds(one, times=TIMES) for name, one in work.items()}
        hub.report(**{str(count): figure for count, figure in figures.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
