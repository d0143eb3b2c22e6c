"""Writes every frame on an interface to a file until another file appears: INTERFACE FRAMES STARTED UNTIL."""
import os
import socket
import struct
import sys

interface, frames, started, until = sys.argv[1:]
EVERYTHING, SOL_PACKET, ADD_MEMBERSHIP, PROMISCUOUS = 3, 263, 1, 1
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
tap.bind((interface, 0))
tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
tap.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", socket.if_nametoindex(interface), PROMISCUOUS, 0, b""))
tap.settimeout(0.1)
open(started, "w").close()
with open(frames, "wb") as file:
    while not os.path.exists(until):
        try:
            file.write(tap.recv(65_536))
        except TimeoutError:
            pass
