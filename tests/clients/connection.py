"""A stock client from the argument of a script, and the script's answer."""
import json
import sys

from pymilvus import MilvusClient


def argument():
    return json.loads(sys.argv[1])


def client(**more):
    return MilvusClient(**{"timeout": 20, **argument()["client"], **more})


def answer(value):
    print(json.dumps(value, default=str))
