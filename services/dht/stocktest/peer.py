#!/usr/bin/python3
"""Runs one node of Debian's python3-opendht: commands come as JSON lines on standard
input, answers and events go as JSON lines to standard output. Arguments: its port, one of
127.0.0.1 to start from, and "identity" for a node that has one."""
import base64
import json
import sys
import threading
import time

import opendht as d

lock = threading.Lock()


def say(**x):
    with lock:
        sys.stdout.write(json.dumps(x) + "\n")
        sys.stdout.flush()


def view(v):
    return {"id": str(v.id), "data": base64.b64encode(v.data).decode(), "utype": v.user_type.decode() if isinstance(v.user_type, bytes) else v.user_type}


node = d.DhtRunner()
if "identity" in sys.argv:
    config = d.DhtConfig()
    config.setIdentity(d.Identity.generate("peer"))
    node.run(port=int(sys.argv[1]), config=config)
else:
    node.run(port=int(sys.argv[1]))
if len(sys.argv) > 2:
    node.bootstrap("127.0.0.1", sys.argv[2])
tokens = {}
say(event="up", id=node.getNodeId().decode(), key=str(node.getId()))
for line in sys.stdin:
    c = json.loads(line)
    if c["op"] == "put":
        v = d.Value(base64.b64decode(c["data"]))
        v.user_type = "text/plain"
        start = time.monotonic()
        ok = node.put(d.InfoHash(c["key"].encode()), v)
        say(event="put", ok=ok, id=str(v.id), us=(time.monotonic() - start) * 1e6)
    elif c["op"] == "get":
        start = time.monotonic()
        vs = node.get(d.InfoHash(c["key"].encode()))
        us = (time.monotonic() - start) * 1e6
        say(event="get", values=[view(v) for v in vs], us=us)
    elif c["op"] == "owners":  # only for values that have one: the binding crashes without
        vs = node.get(d.InfoHash(c["key"].encode()))
        say(event="owners", values=[dict(view(v), owner=str(v.owner.getId())) for v in vs])
    elif c["op"] == "listen":
        def told(v, expired, key=c["key"]):
            say(event="told", key=key, expired=bool(expired), value=view(v))
            return True
        tokens[c["key"]] = node.listen(d.InfoHash(c["key"].encode()), told)
        say(event="listen")
    elif c["op"] == "cancel":
        node.cancelListen(tokens.pop(c["key"]))
        say(event="cancel")
    elif c["op"] == "quit":
        break
node.join()
