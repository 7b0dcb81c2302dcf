"""Who may talk to the dashboard: a real server, and requests to open its stream."""

import base64
import os
import socket

import pytest
from browser.actions import dashboard


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with dashboard(tmp_path_factory.mktemp("hosts"), {}) as running:
        yield int(running.url.rpartition(":")[2])


def upgrade(port: int, host: str, origin: str | None, cookie: str = "") -> int:
    """The status that a request to open the dashboard's stream gets; 101 lets it in."""
    lines = ["GET /_stcore/stream HTTP/1.1", f"Host: {host}", "Upgrade: websocket",
             "Connection: Upgrade", "Sec-WebSocket-Version: 13",
             f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
             *([f"Origin: {origin}"] if origin else []),
             *([f"Cookie: {cookie}"] if cookie else []), "", ""]
    with socket.create_connection(("127.0.0.1", port), 20) as stream:
        stream.sendall("\r\n".join(lines).encode())
        return int(stream.recv(12).split()[1])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "localhost.evil.example",
                                  "127.0.0.1.evil.example", "evil.example@localhost"])
def test_a_foreign_name_is_not_let_in(port, host):
    """As a page does whose name was made to point here: Host and Origin say the same."""
    assert upgrade(port, host, f"http://{host}") == 403
    assert upgrade(port, host, None) == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_the_names_it_is_served_under_are_let_in(port, host):
    host = f"{host}:{port}"
    assert upgrade(port, host, f"http://{host}") == 101
