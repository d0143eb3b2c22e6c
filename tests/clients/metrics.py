"""One search for each metric, with the distances that come back."""
from connection import answer, argument, client

milvus = client()
found = {}
for metric in ["L2", "IP", "COSINE"]:
    name = f"{argument()['collection']}_{metric}"
    if milvus.has_collection(name):
        milvus.drop_collection(name)
    milvus.create_collection(name, dimension=2, metric_type=metric)
    milvus.insert(name, [{"id": 1, "vector": [1.0, 0.0]}, {"id": 2, "vector": [0.0, 3.0]}, {"id": 3, "vector": [2.0, 2.0]}])
    hits = milvus.search(name, data=[[1.0, 1.0]], limit=3)
    found[metric] = [[hit["id"], round(hit["distance"], 4)] for hit in hits[0]]
    milvus.drop_collection(name)
answer(found)
