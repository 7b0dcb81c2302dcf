"""The wheel, installed beside nothing of the repository: what is in it, and that it works."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image
from test_hosts import upgrade

import pipelines

ROOT = Path(__file__).parents[1]
PATIENCE = 60  # seconds


def requirements(name):
    """The lines of a requirements file that name a library."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def shipped_files():
    """The files of the two packages that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "pipelines", "dashboard"], cwd=ROOT,
        check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves files where it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*shipped_files(), "setup.py", "pyproject.toml", "requirements.txt", "README.md",
                 "LICENSE", "NOTICE", ".streamlit/config.toml"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment that holds the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    base = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    Path(base["purelib"], "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip("--python", folder, "install", "--no-deps", "--no-compile", wheel)
    return folder


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check",
                    *map(str, arguments)], check=True, cwd=ROOT.parent)


def program(environment, *arguments):
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    return [scripts / "contact-sheet", *map(str, arguments)]


def run(environment, folder, *arguments, **variables):
    """What the command prints on standard output, started in a folder without the sources."""
    done = subprocess.run(program(environment, *arguments), cwd=folder, capture_output=True,
                          text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"} | variables)
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def serving(environment, folder, *arguments):
    """The dashboard of the wheel: its port, and the file that holds what it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    with open(log, "wb") as file:
        server = subprocess.Popen(
            program(environment, "--home", folder / "home", "--port", port, "--no-browser",
                    *arguments),
            cwd=folder, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text())
        yield port, log
    finally:
        server.terminate()
        server.wait(20)


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_):
        return None


def ask(port, path="/", token=None, cookie=None):
    """Status, headers and body of an answer."""
    data = urllib.parse.urlencode({"token": token}).encode() if token else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data,
                                     {"Cookie": cookie} if cookie else {})
    try:
        answer = urllib.request.build_opener(Stay).open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read().decode(errors="replace")


def test_the_wheel_holds_what_the_repository_does(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == {
        *shipped_files(), "dashboard/.streamlit/config.toml"}
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE",
                                                                                   "NOTICE"}


def test_the_wheel_asks_for_what_requirements_txt_names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    asked = metadata.get_all("Requires-Dist")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"]
    assert [line for line in asked if "extra ==" not in line] == requirements("requirements.txt")
    assert metadata.get_all("Provides-Extra") == list(extras)
    assert sum("extra ==" in line for line in asked) == sum(map(len, extras.values()))
    assert metadata["Version"] == pipelines.__version__
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_wheel_is_built_by_the_setuptools_of_the_tests():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    assert set(build["requires"]) <= set(requirements("requirements-dev.txt"))


def test_the_command_makes_a_picture_far_from_the_sources(environment, tmp_path):
    assert run(environment, tmp_path, "--version")[1] == f"contact-sheet {pipelines.__version__}\n"
    code, shown, _ = run(environment, tmp_path, "--help", COLUMNS="200")
    assert code == 0 and "--host" in shown and "generate" in shown and "hub" in shown
    code, shown, errors = run(
        environment, tmp_path, "--home", "home", "generate", "a red car", "-o", "car.png",
        "--num-inference-steps", "2")
    assert code == 0, errors
    assert shown.startswith("car.png: ")
    assert Image.open(tmp_path / "car.png").size == (64, 64)
    assert (tmp_path / "home" / "runs.sqlite").exists()


def test_what_the_dashboard_has_no_use_for_is_refused(environment, tmp_path):
    code, _, errors = run(environment, tmp_path, "--port", "8600", "models")
    assert code == 2 and errors.count("\n") == 1 and "--port" in errors


def test_the_dashboard_of_the_wheel_answers_to_this_machine_only(environment, tmp_path):
    """Its own settings are in force: without them any name would be let in."""
    with serving(environment, tmp_path) as (port, _):
        assert ask(port)[0] == 200
        assert upgrade(port, f"localhost:{port}", f"http://localhost:{port}") == 101
        assert upgrade(port, "evil.example", "http://evil.example") == 403


def test_other_machines_need_the_password(environment, tmp_path):
    with serving(environment, tmp_path, "--host", "0.0.0.0") as (port, log):
        token = re.search(r"\?token=(\S{20,})", log.read_text())[1]
        for path in ("/", "/_stcore/health", "/_stcore/host-config", "/static/", "/media/x.png"):
            status, headers, body = ask(port, path)
            assert status == 401 and "Password" in body and "Set-Cookie" not in headers, path
        host = f"lab.example:{port}"
        assert upgrade(port, host, f"http://{host}") == 403
        for wrong in ("x", token[:-1], token + "x", "x" * 10_000):
            status, headers, body = ask(port, token=wrong)
            assert status == 403 and "not the password" in body and "Set-Cookie" not in headers
        assert ask(port, cookie="contact_sheet=x")[0] == 401
        status, headers, _ = ask(port, "//evil.example/?run=3", token=token)
        assert (status, headers["Location"]) == (303, "/evil.example/?run=3")
        status, headers, _ = ask(port, f"/?token={token}")
        cookie, *flags = headers["Set-Cookie"].split("; ")
        assert (status, headers["Location"]) == (303, "/") and "HttpOnly" in flags
        assert ask(port, "/_stcore/health", cookie=cookie)[0] == 200
        assert upgrade(port, host, f"http://{host}", cookie) == 101
