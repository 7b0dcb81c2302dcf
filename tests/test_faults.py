"""A comparison on the command line and in the queue, killed and with failing writes: the small
figure of tests/faults.py. CONTACT_SHEET_KILLS=100 raises it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_nothing_is_lost_or_made_twice_by_kills_and_failing_writes():
    kills = os.environ.get("CONTACT_SHEET_KILLS", "1")
    script = Path(__file__).with_name("faults.py")
    lines = subprocess.run(
        [sys.executable, str(script), "--kills", kills, "--errors", kills], check=True, text=True,
        capture_output=True).stdout.splitlines()
    figures = [line for line in lines if "trials" in line]
    assert len(figures) == 4
    for line in figures:
        assert f"{kills} trials" in line
        assert "lost 0, made twice 0, sheets not equal 0 " in line and "not ended 0" in line, line
