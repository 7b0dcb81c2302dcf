"""Several browsers at once: the small figure of tests/browsers.py."""

import asyncio
import threading

import pytest
from browsers import figures, jobs_of, visits

pytestmark = pytest.mark.browser


def test_browsers_at_once_lose_no_job_and_take_turns(server):
    browsers = []

    def visit():  # Playwright has an event loop of its own in the tests' thread
        browsers.extend(asyncio.run(visits(server.url, server.home, 4, 2, 0.0)))

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    result = figures(browsers, jobs_of(server.home, browsers), 2)
    assert result["errors"] == [] and result["lost"] == 0
    assert result["done"] == 8 and result["largest lead"] <= 2
