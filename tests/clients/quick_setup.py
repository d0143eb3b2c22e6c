"""The quick start of the documentation: create, insert, get, query, search, list, describe, drop."""
from connection import answer, argument, client

name = argument()["collection"]
milvus = client()
if milvus.has_collection(name):
    milvus.drop_collection(name)
milvus.create_collection(name, dimension=4)
rows = [{"id": n, "vector": [1.0, n / 10, 0.0, 0.0], "color": f"color-{n}"} for n in range(10)]
inserted = milvus.insert(name, rows)
hits = milvus.search(name, data=[[1.0, 0.3, 0.0, 0.0]], limit=3, output_fields=["color"])
answer({
    "version": milvus.get_server_version(),
    "inserted": inserted["insert_count"],
    "got": sorted((row["id"], row["color"]) for row in milvus.get(name, ids=[2, 7])),
    "queried": sorted(row["id"] for row in milvus.query(name, ids=[1, 2, 99])),
    "by_expression": sorted(row["id"] for row in milvus.query(name, filter="id in [4, 5]", output_fields=["color"])),
    "hits": [(hit["id"], hit["entity"]["color"]) for hit in hits[0]],
    "listed": name in milvus.list_collections(),
    "described": [field["name"] for field in milvus.describe_collection(name)["fields"]],
    "dropped": milvus.drop_collection(name) is None and not milvus.has_collection(name),
})
