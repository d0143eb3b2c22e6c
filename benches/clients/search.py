"""Searches as fast as one client can, each of one vector; then how many of the true nearest rows are among the answers.

`python search.py '{"uri": "https://localhost:19530", "ca": …}'`; see bench.py for the argument.
"""
import time

import numpy

from bench import argument, connect, create, figures, measure, rows_of, say, vectors


def fill(milvus, wanted, stored):
    name, batch = wanted["collection"], wanted["batch"]
    create(milvus, wanted)
    for first in range(0, len(stored), batch):
        milvus.insert(name, rows_of(first, stored[first : first + batch]))
    milvus.flush(name)


def load(milvus, wanted):
    name = wanted["collection"]
    params = milvus.prepare_index_params()
    params.add_index("vector", index_type=wanted["index_type"], metric_type=wanted["metric"], params=wanted["index"])
    milvus.create_index(name, params)
    until = time.monotonic() + 300
    while not indexed(milvus, name, wanted["rows"]):
        if time.monotonic() > until:
            raise TimeoutError("the index is not finished after 300 s")
        time.sleep(0.2)
    milvus.load_collection(name)


def indexed(milvus, name, rows):
    told = milvus.describe_index(name, "vector")
    return int(told.get("indexed_rows", 0)) >= rows and int(told.get("pending_index_rows", 0)) == 0


def nearest(stored, queries, metric, limit):
    """The keys of the true nearest rows of each query, and in which order they are near."""
    if metric == "COSINE":
        stored = stored / numpy.linalg.norm(stored, axis=1, keepdims=True)
    far = -(queries @ stored.T)
    if metric == "L2":
        far = (stored**2).sum(axis=1) + 2 * far
    return numpy.argpartition(far, limit, axis=1)[:, :limit]


def recall(ask, stored, queries, wanted):
    some = queries[: wanted["recall"]]
    truth = nearest(stored, some, wanted["metric"], wanted["limit"])
    found = [{hit["id"] for hit in ask(query)} for query in some]
    hits = sum(len(found[at] & set(truth[at].tolist())) for at in range(len(some)))
    return round(hits / truth.size, 4)


def main():
    wanted = argument()
    milvus = connect(wanted)
    name = wanted["collection"]
    stored, queries = vectors(wanted, wanted["rows"], 0), vectors(wanted, wanted["queries"], 1)
    if not wanted.get("filled"):
        say(f"storing {wanted['rows']} rows")
        fill(milvus, wanted, stored)
        say("indexing and loading them")
        load(milvus, wanted)
    params = {"metric_type": wanted["metric"], "params": wanted["search"]}

    def ask(query):
        return milvus.search(name, data=[query], limit=wanted["limit"], search_params=params)[0]

    say("searching")
    taken = measure(wanted, lambda thread, count: ask(queries[(count * wanted["threads"] + thread) % len(queries)]))
    found = recall(ask, stored, queries, wanted)
    if not wanted["keep"]:
        milvus.drop_collection(name)
    figures("search", wanted, taken, 1, recall=found)


if __name__ == "__main__":
    main()
