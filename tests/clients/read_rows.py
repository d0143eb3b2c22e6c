"""Reads rows by id, in pages."""
from connection import answer, argument, client

name, ids = argument()["collection"], argument()["ids"]
milvus = client()
found = []
for page in range(0, len(ids), 500):
    found += [row["id"] for row in milvus.query(name, ids=ids[page:page + 500], output_fields=["id"])]
answer({"found": sorted(found)})
