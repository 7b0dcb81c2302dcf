"""Pictures made by several devices, of one machine or of many, through Ray (docs/cluster.md).

The driver is an engine with a `Cluster` (driver.py): it keeps the log and the stores, and gives
pictures to devices as those ask for them (sharing.py). Each device is an actor of Ray with an
engine of its own (device.py), which lives as long as the cluster, so that models stay loaded.
connection.py finds a cluster and its devices, local.py starts one on this machine. Ray is imported
when a cluster is used; without it the rest of the program works.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.cluster.driver import Cluster

SETTING = "CONTACT_SHEET_CLUSTER"  # the environment variable: auto, or ray://HOST:PORT


def cluster_of(address: str | None = None) -> Cluster | None:
    """The cluster at an address, else the one that the environment names, which is connected when
    it is needed; None without either. Raises RequestError."""
    address = address or os.environ.get(SETTING)
    if not address:
        return None
    from pipelines.cluster.driver import Cluster

    return Cluster(address)
