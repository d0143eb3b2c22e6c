"""Whether a client is let in: what it lists, or the error it is given."""
from connection import answer, client

try:
    answer({"listed": client(timeout=6, dedicated=True).list_collections()})
except Exception as error:
    answer({"error": f"{type(error).__name__}: {error}"})
