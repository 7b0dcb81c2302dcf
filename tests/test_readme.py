"""What the README names exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WIDE = {**os.environ, "COLUMNS": "200"}
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)).replace("\\\n", " ")


def test_make_targets_exist():
    targets = set(re.findall(r"\bmake (\w+)", BLOCKS + " ".join(re.findall(r"`(.*?)`", README))))
    assert {"run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target


def test_links_and_pictures_exist():
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)#\"]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("command", ["generate", "compare", "runs", "models", "schedulers",
                                     "hub search", "hub download", "hub cache", "inpaint",
                                     "segment"])
def test_commands_and_their_options_exist(command):
    done = subprocess.run([sys.executable, "-m", "pipelines", *command.split(), "--help"],
                          cwd=ROOT, capture_output=True, text=True, check=True, env=WIDE)
    lines = [line for line in BLOCKS.splitlines() if f"-m pipelines {command}" in line]
    assert lines, command
    for word in (word for line in lines for word in shlex.split(line, comments=True)):
        if word.startswith("-") and word != "-m":
            assert word in done.stdout, word


def test_every_option_the_text_names_exists():
    helps = "".join(
        subprocess.run([sys.executable, "-m", "pipelines", *command.split(), "--help"], cwd=ROOT,
                       capture_output=True, text=True, check=True, env=WIDE).stdout
        for command in ("generate", "compare", "runs", "hub download", "hub cache")
    )
    for option in set(re.findall(r"`(--[a-z-]+)", README)):
        assert option in helps, option


def test_environment_variables_are_read_somewhere():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipelines").glob("*.py"))
    for name in set(re.findall(r"CONTACT_SHEET_[A-Z]+", README)):
        assert f'"{name}"' in source, name
