"""Inserts rows until it has done so many calls, and tells which were acknowledged."""
from connection import answer, argument, client

name, calls = argument()["collection"], argument()["calls"]
milvus = client()
if not milvus.has_collection(name):
    milvus.create_collection(name, dimension=4, metric_type="L2")
acknowledged = []
for call in range(calls):
    rows = [{"id": call * 20 + n, "vector": [float(call), float(n), 0.0, 0.0], "note": f"row {n}"} for n in range(20)]
    acknowledged += milvus.insert(name, rows)["ids"]
answer({"acknowledged": list(acknowledged)})
