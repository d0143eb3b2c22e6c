"""What both scripts share: the argument, a stock client, the data, the figures.

The argument is one JSON object. `uri`, and for TLS `ca`, `server_name`, and for two-way TLS `cert` and `key`; `token` where
users are asked. `rows`, `dim`, `threads`, `seconds`, `metric`, `seed`, `batch`, `limit`, `index` and `search` (parameters of
the index and of a search, `{"M": 16, "efConstruction": 200}` and `{"ef": 64}`) have the defaults below.
"""
import json
import sys
import threading
import time

import numpy
from pymilvus import DataType, MilvusClient

DEFAULTS = {
    "collection": "bench",
    "rows": 20_000,
    "dim": 128,
    "spread": 16,
    "threads": 1,
    "seconds": 10,
    "warm_up": 1,
    "metric": "L2",
    "index_type": "HNSW",
    "index": {"M": 16, "efConstruction": 200},
    "search": {"ef": 64},
    "limit": 10,
    "batch": 1_000,
    "queries": 1_000,
    "recall": 200,
    "seed": 7,
    "keep": False,
}


def argument():
    return {**DEFAULTS, **json.loads(sys.argv[1])}


def say(text):
    print(text, file=sys.stderr, flush=True)


def connect(wanted):
    options = {"uri": wanted["uri"], "timeout": 60}
    names = {
        "ca": "ca_pem_path" if wanted.get("cert") else "server_pem_path",
        "cert": "client_pem_path",
        "key": "client_key_path",
        "server_name": "server_name",
        "token": "token",
    }
    options.update({option: wanted[name] for name, option in names.items() if wanted.get(name)})
    return MilvusClient(**options)


def create(milvus, wanted):
    """The collection anew, without an index: a key and a vector."""
    name = wanted["collection"]
    if milvus.has_collection(name):
        milvus.drop_collection(name)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=wanted["dim"])
    milvus.create_collection(name, schema=schema, consistency_level="Bounded")


def vectors(wanted, rows, stream):
    """Normal in `spread` directions, with some noise in all; the same for the same seed, shape and stream."""
    dim, spread = wanted["dim"], min(wanted["spread"], wanted["dim"])
    directions = numpy.random.default_rng(wanted["seed"]).standard_normal((spread, dim), dtype=numpy.float32)
    made = numpy.random.default_rng([wanted["seed"], stream])
    noise = 0.1 * made.standard_normal((rows, dim), dtype=numpy.float32)
    return made.standard_normal((rows, spread), dtype=numpy.float32) @ directions / spread**0.5 + noise


def rows_of(first, some):
    return [{"id": first + at, "vector": vector} for at, vector in enumerate(some)]


def measure(wanted, work):
    """Calls `work(thread, count)` from every thread until the time is over; gives the seconds of each call and of all."""
    begin = threading.Barrier(wanted["threads"] + 1)
    taken = [[] for _ in range(wanted["threads"])]
    failed = []

    def run(thread):
        count = 0
        try:
            begin.wait()
            # The first calls fill caches and open connections.
            ready = time.perf_counter() + wanted["warm_up"]
            end = ready + wanted["seconds"]
            while (at := time.perf_counter()) < end:
                work(thread, count)
                count += 1
                if at >= ready:
                    taken[thread].append(time.perf_counter() - at)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=[thread]) for thread in range(wanted["threads"])]
    for thread in threads:
        thread.start()
    begin.wait()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(taken, [])


def figures(op, wanted, taken, rows, **more):
    """The last line: times in microseconds, rates a second."""
    calls = len(taken)
    p50, p99, p999 = (int(1e6 * value) for value in numpy.percentile(taken, [50, 99, 99.9]))
    told = {
        "op": op,
        "threads": wanted["threads"],
        "count": calls,
        "seconds": wanted["seconds"],
        "per_s": round(calls / wanted["seconds"], 1),
        "rows_per_s": round(calls * rows / wanted["seconds"], 1),
        "p50_us": p50,
        "p99_us": p99,
        "p999_us": p999,
        **more,
    }
    print(json.dumps(told))
