"""One Chromium and one dashboard for all tests of this package; a browser context for each."""

import pytest
from chromium import MISSING
from chromium import find as find_chromium
from playwright.sync_api import sync_playwright

from browser.actions import dashboard
from pipelines import Engine

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)


@pytest.fixture(scope="package")
def chromium():
    """Closed with this package: its event loop would be in the way of other tests."""
    path = find_chromium()
    if not path:
        pytest.fail(MISSING, False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """The one dashboard of these tests; each test has a prompt of its own, or counts nothing."""
    with dashboard(tmp_path_factory.mktemp("dashboard"), {}) as running:
        yield running


@pytest.fixture
def address(server):
    return server.url


@pytest.fixture
def server_engine(server, session_engine):
    """An engine of this process that writes to the dashboard's data folder."""
    engine = Engine(server.home, device="cpu")
    engine.registry = session_engine.registry
    return engine


@pytest.fixture
def page(chromium):
    """A page with cookies and storage of its own; what it logs as an error fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors
