"""Searches the digits over the cluster, and by brute force here, in integers."""
import csv
import gzip
import heapq

from connection import answer, argument, client

name = argument()["collection"]
with gzip.open(argument()["file"], "rt") as file:
    rows = [[int(value) for value in row] for row in csv.reader(file)]
milvus = client()
if milvus.has_collection(name):
    milvus.drop_collection(name)
milvus.create_collection(name, dimension=64, metric_type="L2")
for page in range(0, len(rows), 600):
    milvus.insert(name, [
        {"id": n, "vector": [float(v) for v in rows[n][:64]], "digit": rows[n][64]}
        for n in range(page, min(page + 600, len(rows)))
    ])
queries = list(range(0, len(rows), 60))
found = milvus.search(name, data=[rows[n][:64] for n in queries], limit=10, output_fields=["digit"])


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b))


wrong, alike = [], 0
for query, hits in zip(queries, found):
    exact = heapq.nsmallest(10, ((squared(rows[query][:64], row[:64]), n) for n, row in enumerate(rows)))
    distances = [round(hit["distance"]) for hit in hits]
    if distances != [distance for distance, _ in exact]:
        wrong.append({"query": query, "found": distances, "exact": [distance for distance, _ in exact]})
    if any(squared(rows[query][:64], rows[hit["id"]][:64]) != round(hit["distance"]) for hit in hits):
        wrong.append({"query": query, "distances": "not those of the rows"})
    alike += sum(hit["entity"]["digit"] == rows[query][64] for hit in hits)
milvus.drop_collection(name)
answer({"rows": len(rows), "queries": len(queries), "wrong": wrong, "alike": alike / (10 * len(queries))})
