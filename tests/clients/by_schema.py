"""A collection by schema with a VarChar key and scalar fields, its index, its load state."""
from pymilvus import DataType, MilvusClient

from connection import answer, argument, client

name = argument()["collection"]
milvus = client()
if milvus.has_collection(name):
    milvus.drop_collection(name)
schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=3)
schema.add_field("price", DataType.DOUBLE)
schema.add_field("stock", DataType.INT64)
schema.add_field("sold", DataType.BOOL)
milvus.create_collection(name, schema=schema)
before = milvus.get_load_state(name)["state"].name
index = milvus.prepare_index_params()
index.add_index("embedding", index_type="FLAT", metric_type="IP")
milvus.create_index(name, index)
milvus.load_collection(name)
loaded = milvus.get_load_state(name)["state"].name
rows = [
    {"key": f"k{n}", "embedding": [float(n), 1.0, 0.0], "price": n + 0.5, "stock": n, "sold": n % 2 == 0}
    for n in range(6)
]
inserted = milvus.insert(name, rows)["insert_count"]
milvus.flush(name)
hits = milvus.search(name, data=[[1.0, 0.0, 0.0]], limit=2, output_fields=["price", "stock", "sold"])
row = milvus.get(name, ids=["k3"])[0]
milvus.release_collection(name)
released = milvus.get_load_state(name)["state"].name
try:
    milvus.search(name, data=[[1.0, 0.0, 0.0]], limit=2)
    refused = "served"
except Exception as error:
    refused = str(error)
milvus.drop_collection(name)
answer({
    "states": [before, loaded, released],
    "inserted": inserted,
    "hits": [(hit["key"], hit["entity"]["price"], hit["entity"]["stock"], hit["entity"]["sold"]) for hit in hits[0]],
    "row": {"key": row["key"], "price": row["price"], "stock": row["stock"], "sold": row["sold"]},
    "refused": refused,
})
