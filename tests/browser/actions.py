"""A running dashboard, and what every browser test does with it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)


class Dashboard(NamedTuple):
    """A dashboard that runs, and the data folder it writes to."""

    url: str
    home: Path


@contextlib.contextmanager
def dashboard(home: Path, environment: dict[str, str]) -> Iterator[Dashboard]:
    """A dashboard on a free port with a data folder of its own; it asks no network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"CONTACT_SHEET_HOME": str(home), "HF_HUB_OFFLINE": "1", **environment}
    with open(home / "log.txt", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "dashboard/app.py",
             f"--server.port={port}", "--server.headless=true"],
            cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/_stcore/health", server, home / "log.txt")
        yield Dashboard(url, home)
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if server.poll() is not None:
                break
    pytest.fail(f"the dashboard did not start:\n{log.read_text(errors='replace')}")


def open_page(page, url: str, title: str) -> None:
    page.goto(url)
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    settled(page)


def settled(page) -> None:
    """Wait until the script of the page has run to its end."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def hero(page):
    """The picture on the page Generate."""
    return page.locator(".stage img")
