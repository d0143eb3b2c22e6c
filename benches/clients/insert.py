"""Inserts batches of rows as fast as one client can, then checks that every row is there.

`python insert.py '{"uri": "https://localhost:19530", "ca": …}'`; see bench.py for the argument.
"""
import threading

from bench import argument, connect, create, figures, measure, rows_of, say, vectors


def main():
    wanted = argument()
    milvus = connect(wanted)
    name, batch = wanted["collection"], wanted["batch"]
    create(milvus, wanted)
    # The same vectors under ever new keys: to make random numbers is not what is measured.
    stored = vectors(wanted, batch, 0)
    lock, given = threading.Lock(), [0]

    def insert(_thread, _count):
        with lock:
            first = given[0]
            given[0] += batch
        milvus.insert(name, rows_of(first, stored))

    say("inserting")
    taken = measure(wanted, insert)
    check(milvus, wanted, given[0])
    if not wanted["keep"]:
        milvus.drop_collection(name)
    figures("insert", wanted, taken, batch)


def check(milvus, wanted, rows):
    """Counts after a flush: Milvus counts only what it has flushed."""
    name = wanted["collection"]
    milvus.flush(name)
    there = int(milvus.get_collection_stats(name)["row_count"])
    if there != rows:
        raise RuntimeError(f"{rows} rows were acknowledged, {there} are there")


if __name__ == "__main__":
    main()
