"""One insert of some 60 MB in one message, and half of its rows back in one."""
from connection import answer, argument, client

name, rows, dimension = argument()["collection"], 7_500, 2_000
milvus = client(timeout=100)
if milvus.has_collection(name):
    milvus.drop_collection(name)
milvus.create_collection(name, dimension=dimension, metric_type="L2")
vector = [1.0] * dimension
inserted = milvus.insert(name, [{"id": n, "vector": vector} for n in range(rows)], timeout=100)["insert_count"]
back = milvus.query(name, ids=list(range(0, rows, 2)), output_fields=["vector"], timeout=100)
milvus.drop_collection(name)
answer({"inserted": inserted, "back": len(back), "whole": all(len(row["vector"]) == dimension for row in back)})
