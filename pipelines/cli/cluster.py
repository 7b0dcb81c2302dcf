"""Devices of one or many machines that make pictures together, through Ray."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.cli.output import Json, print_json, print_notes, print_table
from pipelines.cluster import SETTING
from pipelines.errors import ClusterError, RequestError
from pipelines.run_log import data_home

Address = Annotated[str | None, typer.Option(
    "--cluster", metavar="auto|ray://HOST:10001", envvar=SETTING, show_envvar=False,
    help="Let the devices of a cluster make the pictures: auto is the one of this machine "
    f"(`cluster start`) or of RAY_ADDRESS. {SETTING} says it too, also for the dashboard.")]
MEGABYTE = 10**6


def start(
    address: Annotated[str | None, typer.Option(
        metavar="HOST:PORT", help="Join the cluster there, in place of beginning one.")] = None,
    cpus: Annotated[int | None, typer.Option(
        min=1, help="CPU cores that it may use; all of them if left out.")] = None,
    gpus: Annotated[int | None, typer.Option(
        min=0, help="GPUs that it may use; all of them if left out.")] = None,
    port: Annotated[int, typer.Option(
        min=1, max=65535, help="Where other machines join.")] = 6379,
    client_port: Annotated[int, typer.Option(
        min=1, max=65535, help="Where ray:// answers.")] = 10001,
    object_store: Annotated[int, typer.Option(
        min=80, metavar="MB", help="Memory for pictures on their way.")] = 500,
) -> None:
    """Begin a cluster on this machine, or join one, with an actor for each GPU, or where there is
    none for each half of the CPU cores."""
    from pipelines.cluster.driver import Cluster
    from pipelines.cluster.local import start_node

    if address and ":" not in address:
        raise RequestError(f"address: received {address!r}, accepted HOST:PORT")
    print("starting Ray ...", file=sys.stderr)
    where = start_node(data_home(), address, cpus, gpus, object_store * MEGABYTE, port, client_port)
    if address:
        print(f"joined the cluster at {where}")
        return
    print("starting the devices ...", file=sys.stderr)
    cluster = Cluster()
    cluster.wait_for_devices()
    print_notes(*cluster.notes)
    print(f"{len(cluster.ready())} devices ({cluster.machine['device_name']}); use it with "
          f"--cluster auto or {SETTING}=auto, from elsewhere with ray://{where.split(':')[0]}:"
          f"{client_port}; other machines join with: contact-sheet cluster start --address {where}")


def status(
    address: Annotated[str, typer.Option(
        "--cluster", metavar="auto|ray://HOST:10001", envvar=SETTING, show_envvar=False,
        help="Which cluster.")] = "auto",
    as_json: Json = False,
) -> None:
    """List the devices of a cluster, and the models that each has used last."""
    from pipelines.cluster.driver import Cluster

    cluster = Cluster(address)
    devices = cluster.hellos()
    if as_json:
        print_json(devices)
    else:
        print_table(["device", "hardware", "torch", "Contact Sheet", "models"],
                    [[device["label"], device["environment"]["device_name"],
                      device["environment"]["torch"], device["version"],
                      ", ".join(device["models"])] for device in devices])
    print_notes(*cluster.notes)
    if not devices:
        raise ClusterError("the cluster has no device that answers")


def stop() -> None:
    """End the cluster, or the node, that `cluster start` began on this machine."""
    from pipelines.cluster.local import stop_node

    if not stop_node(data_home()):
        raise ClusterError("nothing that `cluster start` began runs here; a cluster of Ray's own "
                           "launchers is ended by `ray stop`")
    print("stopped")
