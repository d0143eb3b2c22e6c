"""Inserts and reads back until the file named `until` is there; half of the clients are new for every call."""
import os

from connection import answer, argument, client

name, until = argument()["collection"], argument()["until"]
kept = client(dedicated=True)
if not kept.has_collection(name):
    kept.create_collection(name, dimension=4, metric_type="L2")
open(argument()["started"], "w").close()
calls, errors = 0, []
while not os.path.exists(until):
    milvus = kept if calls % 2 == 0 else client(dedicated=True)
    try:
        milvus.insert(name, [{"id": calls, "vector": [float(calls), 0.0, 0.0, 0.0]}])
        rows = milvus.query(name, ids=[calls], output_fields=["id"])
        if [row["id"] for row in rows] != [calls]:
            errors.append(f"call {calls} read back {rows}")
    except Exception as error:
        errors.append(f"call {calls}: {error}")
    if milvus is not kept:
        milvus.close()
    calls += 1
answer({"calls": calls, "errors": errors})
