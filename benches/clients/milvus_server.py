"""Makes Milvus 2.3.5 ready to run in a folder; run by an interpreter that has the package `milvus==2.3.5`.

The argument is one JSON object: `dir`, a folder of its own, and `tls_mode` with `cert`, `key` and `ca` of the server. The last
line says how to start it, `{"program", "environment", "folder", "port", "http_port", "health"}`: one process without
children, started in `folder`, ready when `health` answers OK. It has to be killed: SIGTERM does not end it in 30 s.

1. The wheel holds the server, packed, and a starter that waits without end and cannot give REST a port of its own; under TLS
   the server refuses to share one. So the server is started without it, with the wheel's configuration and that key.
2. The embedded etcd listens on 127.0.0.1:2379 and 2380 whatever is configured: one server at a time on a machine. All other
   ports are free ones, on all addresses.
3. The folders of etcd's log and data must be there.
"""
import json
import os
import re
import socket
import sys

import milvus

HTTP = "    debug_mode: false # Whether to enable http server debug mode\n"


def main():
    wanted = json.loads(sys.argv[1])
    folder = os.path.abspath(wanted["dir"])
    for part in ["configs", "logs", "run", "data/etcd.data", "data/rocksmq"]:
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    milvus._initialize_data_files(folder)
    config = milvus.MilvusServerConfig(template=template(folder), data_dir=folder)
    config.glog_conf_file = os.path.join(packed(), "glog.conf")
    ports = free([key for key in config.configurable_items if key.endswith("_port")] + ["health"])
    health = ports.pop("health")
    config.resolve_storage()
    settings = {"tls_mode": wanted.get("tls_mode", 0)}
    names = {"cert": "server_pem_path", "key": "server_key_path", "ca": "ca_pem_path"}
    settings.update({key: os.path.abspath(wanted[name]) for name, key in names.items() if wanted.get(name)})
    for key, value in {**ports, **settings}.items():
        config.set(key, value)
    config.write_config()
    print(json.dumps(start(folder, ports, health)))


def packed():
    return os.path.join(os.path.dirname(milvus.__file__), "data")


def template(folder):
    """The wheel's configuration, with a port for REST."""
    with open(os.path.join(packed(), "config.yaml.template"), encoding="utf-8") as file:
        text = file.read()
    if text.count(HTTP) != 1:
        raise RuntimeError("the configuration of this milvus is not that of 2.3.5")
    text = text.replace(HTTP, HTTP + "    port: {{ proxy_http_port(int): 0 }}\n")
    path = os.path.join(folder, "template.yaml")
    with open(path, "w", encoding="utf-8") as file:
        # The address that the parts of the server find each other by: else the first of the machine.
        file.write(re.sub(r"^(\s+)ip:( #.*)?$", r"\1ip: 127.0.0.1", text, flags=re.MULTILINE))
    return path


def free(names):
    """A free port for each name, no two the same."""
    sockets = {name: socket.socket() for name in names}
    try:
        for held in sockets.values():
            held.bind(("127.0.0.1", 0))
        return {name: held.getsockname()[1] for name, held in sockets.items()}
    finally:
        for held in sockets.values():
            held.close()


def start(folder, ports, health):
    return {
        "program": [os.path.join(folder, "bin/milvus"), "run", "standalone"],
        "environment": {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(health),
            "MILVUS_RUN_DIR": os.path.join(folder, "run"),
            "MILVUSCONF": os.path.join(folder, "configs"),
            "LD_LIBRARY_PATH": os.path.join(folder, "bin"),
        },
        "folder": folder,
        "port": ports["proxy_port"],
        "http_port": ports["proxy_http_port"],
        "health": f"http://127.0.0.1:{health}/healthz",
    }


if __name__ == "__main__":
    main()
