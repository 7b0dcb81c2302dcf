"""A node of a cluster on this machine: started, remembered in the data folder, and stopped.

The node is Ray's own `ray start --block` in a process of the background, so that stopping it ends
what it started and nothing else: `ray stop` would end every Ray of the machine. Whoever reaches a
cluster can run code on it, so a token is asked for, which lies in the data folder.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from pipelines.cluster.connection import MODE, NODE, TOKEN, ray_library
from pipelines.errors import ClusterError, StorageError
from pipelines.files import write_file

LOG = "cluster.log"
START_SECONDS, STOP_SECONDS = 90, 30
OBJECT_STORE_BYTES = 500_000_000  # pictures on their way; most are smaller than what goes directly


def start_node(
    home: Path, join: str | None = None, cpus: int | None = None, gpus: int | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES, port: int = 6379, client_port: int = 10001,
) -> str:
    """Start a cluster on this machine, or a node that joins the one at `join` (HOST:PORT); where
    others join it. `cpus` and `gpus` are what it may use, by default all. Raises ClusterError."""
    if process := node_process(home):
        raise ClusterError(f"a node was started here before (process {process.pid}); "
                           "contact-sheet cluster stop ends it")
    options = ["--block", "--disable-usage-stats", f"--object-store-memory={object_store_bytes}"]
    options += [f"--address={join}"] if join else [
        "--head", f"--port={port}", f"--ray-client-server-port={client_port}",
        "--include-dashboard=false"]
    options += [] if cpus is None else [f"--num-cpus={cpus}"]
    options += [] if gpus is None else [f"--num-gpus={gpus}"]
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not join and MODE not in os.environ:
            _write_token(home / TOKEN)
        ray_library(home)
        with open(home / LOG, "w+b") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
    except OSError as error:
        raise StorageError(f"{home} cannot be written: {error}") from error
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in (said := (home / LOG).read_text("utf-8", "replace")):
        if node.poll() is not None or time.monotonic() > deadline:
            node.terminate()
            (home / TOKEN).unlink(missing_ok=True)
            lines = [line for line in said.splitlines() if line.strip()]
            raise ClusterError(f"Ray did not start, see {home / LOG}: "
                               f"{lines[-1] if lines else 'it says nothing'}")
        time.sleep(0.2)
    address = join or f"{_address()}:{port}"
    remembered = {"pid": node.pid, "create_time": psutil.Process(node.pid).create_time(),
                  "address": address}
    write_file(home / NODE, json.dumps(remembered).encode())
    return address


def stop_node(home: Path) -> bool:
    """End what `start_node` began; False where nothing of it runs."""
    process = node_process(home)
    if process:
        members = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(members, STOP_SECONDS)
        for member in alive:
            member.kill()
    for name in (NODE, TOKEN):
        (home / name).unlink(missing_ok=True)
    return process is not None


def node_process(home: Path) -> psutil.Process | None:
    """The process that `start_node` began, while it lives."""
    try:
        values: dict[str, Any] = json.loads((home / NODE).read_text("utf-8"))
        process = psutil.Process(values["pid"])
        return process if process.create_time() == values["create_time"] else None
    except (OSError, ValueError, LookupError, TypeError, psutil.Error):
        return None


def _write_token(path: Path) -> None:
    """Only the user may read it."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())

