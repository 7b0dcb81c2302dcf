"""How many cores a process may use."""

import os
import subprocess
import sys

import pytest

from pipelines.hardware import cgroup_quota

CODE = "from pipelines.hardware import cores; print(cores())"


def cores(**variables):
    environment = {**os.environ, **variables}
    for name in ("OMP_NUM_THREADS", "CONTACT_SHEET_THREADS"):
        if name not in variables:
            environment.pop(name, None)
    return subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True,
                          text=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux tells the affinity")
def test_the_number_of_cores_follows_the_affinity_and_the_settings():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # inherited
    try:
        assert cores().stdout.strip() == "1"
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores(CONTACT_SHEET_THREADS="3").stdout.strip() == "3"
    assert cores(OMP_NUM_THREADS="1").stdout.strip() == "1"
    assert "accepted a whole number" in cores(CONTACT_SHEET_THREADS="many").stderr


@pytest.mark.parametrize(("membership", "files", "quota"), [
    ("0::/", {"cpu.max": "150000 100000"}, 1.5),
    ("0::/", {"cpu.max": "max 100000"}, None),
    ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
    ("4:cpu,cpuacct:/docker/x", {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000",
                                 "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"}, 0.5),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ("broken", {}, None),
])
def test_a_containers_quota_is_read(tmp_path, membership, files, quota):
    (tmp_path / "cgroup").write_text(membership + "\n")
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    assert cgroup_quota(tmp_path / "fs", tmp_path / "cgroup") == quota
