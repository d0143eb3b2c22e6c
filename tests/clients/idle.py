"""A connection that only pings for a while, five times as often as a stock client, and is then used again."""
import time

from connection import answer, client

milvus = client(dedicated=True, grpc_options={
    "grpc.keepalive_time_ms": 1_000,
    "grpc.keepalive_timeout_ms": 1_000,
    "grpc.http2.max_pings_without_data": 0,
})
milvus.list_collections()
time.sleep(6)  # The idle time is what is tested.
start = time.monotonic()
milvus.list_collections(timeout=2)
answer({"again_within_a_second": time.monotonic() - start < 1})
