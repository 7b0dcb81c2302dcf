"""A running cluster of Ray: the way to it, its nodes, and an actor for each of their devices."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster import SETTING
from pipelines.cluster.device import Device
from pipelines.errors import ClusterError, RequestError, first_line
from pipelines.run_log import data_home

if TYPE_CHECKING:
    from types import ModuleType

NAMESPACE = "contact-sheet"
NODE = "cluster.json"  # the node that this program began, in the data folder
# The token of its cluster: in the data folder, and where Ray looks for it.
TOKEN, MODE, TOKEN_PATH = "cluster.token", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
CONNECT_SECONDS = 10
CALLS = 32  # of an actor at once: each driver has two
HOW = "contact-sheet cluster start"


@dataclass(frozen=True)
class Place:
    """Where a device is, and what its actor takes of the node: `name` is the actor's, `label` what
    people see."""

    name: str
    label: str
    node_id: str
    device: str
    cpus: int
    gpus: int


def check_address(address: str) -> str:
    """The address, where it is 'auto' or begins with ray://; raises RequestError."""
    if address == "auto" or (address.startswith("ray://") and address != "ray://"):
        return address
    raise RequestError(f"cluster: received {address!r}, accepted auto (the cluster of this "
                       "machine, or of RAY_ADDRESS) or ray://HOST:10001")


def ray_library(home: Path | None = None) -> ModuleType:
    """Ray, with the token of a data folder; raises ClusterError where it is not installed."""
    if not importlib.util.find_spec("ray"):
        raise ClusterError("a cluster needs Ray, which is not installed: "
                           "pip install 'contact-sheet[cluster]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    token = (home or data_home()) / TOKEN
    if MODE not in os.environ and token.exists():
        os.environ |= {MODE: "token", TOKEN_PATH: str(token)}
    import ray

    return ray


def connect(address: str) -> ModuleType:
    """Ray, connected to a cluster; raises ClusterError where none is there."""
    check_address(address)
    ray = ray_library()
    if ray.is_initialized():
        return ray
    text = _where(address)
    try:
        _see_that_it_answers(text)
        ray.init(text, namespace=NAMESPACE, log_to_driver=False, configure_logging=False,
                 logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "on this machine" if text == "auto" else text
        raise ClusterError(f"no cluster answers ({where}): {first_line(error)[:160]}; "
                           f"{HOW!r} starts one here, {SETTING} or --cluster names one elsewhere"
                           ) from error
    return ray


def _where(address: str) -> str:
    """What 'auto' stands for: RAY_ADDRESS, else the node of the data folder, else what Ray finds.
    """
    if address != "auto":
        return address
    remembered = ""
    with contextlib.suppress(OSError, ValueError, LookupError):
        remembered = json.loads((data_home() / NODE).read_text("utf-8"))["address"]
    return os.environ.get("RAY_ADDRESS") or remembered or address


def _see_that_it_answers(address: str) -> None:
    """Raise OSError where nobody does: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def disconnect() -> None:
    """Leave the cluster; its devices and their models stay."""
    if importlib.util.find_spec("ray"):
        import ray

        ray.shutdown()


def places(ray: ModuleType) -> list[Place]:
    """The devices of the nodes that are there: their GPUs, or where no node has one, the halves of
    each node's CPU cores."""
    nodes = sorted((node for node in ray.nodes() if node["Alive"]),
                   key=lambda node: (node["NodeManagerHostname"], node["NodeID"]))
    names = [node["NodeManagerHostname"] for node in nodes]
    with_gpu = any(node["Resources"].get("GPU") for node in nodes)
    result = []
    for node, name in zip(nodes, names, strict=True):
        if names.count(name) > 1:  # several on one machine
            name = f"{name}-{node['NodeID'][:6]}"
        result += [Place(f"{node['NodeID']}:{number}", f"{name}:{number}", node["NodeID"], *taken)
                   for number, taken in enumerate(_devices(node["Resources"], with_gpu))]
    return result


def _devices(resources: dict[str, float], with_gpu: bool) -> Iterator[tuple[str, int, int]]:
    """Kind, CPU cores and GPUs of each device of a node."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if with_gpu:
        yield from (("cuda", cpus // gpus, 1) for _ in range(gpus))
    elif cpus:
        halves = min(2, cpus)
        yield from (("cpu", cpus // halves, 0) for _ in range(halves))


def actor_of(ray: ModuleType, place: Place) -> Any:
    """The actor of a device, started where there is none."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return ray.remote(Device).options(
        name=place.name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
        num_cpus=place.cpus, num_gpus=place.gpus, max_concurrency=CALLS, max_restarts=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=False),
    ).remote(place.label, place.device)
