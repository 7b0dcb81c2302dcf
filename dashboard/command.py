"""The command `contact-sheet`: alone it serves the dashboard, else it is the command line."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

import pipelines
from pipelines import cli
from pipelines.cli.options import refuse_beside

HERE = Path(__file__).parent
PORT = 8501

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cli.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"contact-sheet {pipelines.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Where log and pictures lie; also for the commands below.")] = None,
    port: Annotated[int | None, typer.Option(
        min=1, max=65535, help=f"The dashboard's port; without it {PORT}, or the next free one "
        "where only this machine is served.")] = None,
    host: Annotated[str, typer.Option(
        help="The address to serve at. Any but this machine's own asks for a password: that of the "
        "environment's CONTACT_SHEET_PASSWORD, else one that is made and printed.")] = "localhost",
    browser: Annotated[bool, typer.Option(help="Open the dashboard in a browser.")] = True,
    version: Annotated[bool, typer.Option(
        "--version", is_eager=True, callback=_show_version, help="Print it and end.")] = False,
) -> None:
    """Compare diffusion image pipelines side by side.

    Without a command it serves the dashboard and opens it in a browser.
    """
    if home:
        os.environ["CONTACT_SHEET_HOME"] = str(home.expanduser().absolute())
    if context.invoked_subcommand:
        refuse_beside(context, f"{context.invoked_subcommand}: has no use for options of the "
                      "dashboard", {"port", "host", "browser"})
        return
    from streamlit.web import cli as streamlit

    if not (HERE / ".streamlit").exists():  # a checkout: Streamlit's settings lie above (setup.py)
        os.chdir(HERE.parent)
    if _is_local(host):
        script = "app.py"
        options = {"headless": str(not browser).lower(), "showEmailPrompt": "false"}
        options |= {"port": str(port)} if port else {}
        options |= {"address": host} if host != "localhost" else {}
    else:
        script, port = "served.py", port or PORT
        options = {"headless": "true", "port": str(port), "address": host, "allowedHosts": "*"}
        _tell_way_in(host, port)
    flags = [f"--server.{name}={value}" for name, value in options.items()]
    streamlit.main(["run", str(HERE / script), *flags], standalone_mode=False)


def _is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _tell_way_in(host: str, port: int) -> None:
    """See that there is a password, and print where the dashboard is."""
    from dashboard.door import FIELD, SECRET

    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    if os.environ.get(SECRET):
        print(f"Contact Sheet: {address} (with the password of {SECRET})", flush=True)
        return
    os.environ[SECRET] = secrets.token_urlsafe(24)
    print(f"Contact Sheet: {address}?{FIELD}={quote(os.environ[SECRET])}", flush=True)


def main() -> None:
    cli.run(app, sys.argv[1:], "contact-sheet")
