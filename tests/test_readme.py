"""What the README names exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipelines import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)).replace("\\\n", " ")


def test_make_targets_exist():
    targets = set(re.findall(r"\bmake (\w+)", BLOCKS + " ".join(re.findall(r"`(.*?)`", README))))
    assert {"run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target


def test_links_and_pictures_exist():
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)#\"]+)", README):
        assert (ROOT / target).exists(), target


def commands(group, words=()):
    """The words of every registered command, such as ('hub', 'search')."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


COMMANDS = list(commands(typer.main.get_command(cli.app)))


def options(command):
    """What `--help` of a command lists."""
    shown = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown.output))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_documented_and_the_options_it_is_shown_with_exist(command):
    lines = [line for line in BLOCKS.splitlines() if f"-m pipelines {' '.join(command)}" in line]
    assert lines, f"README has no example of {' '.join(command)}"
    shown = {word for line in lines for word in shlex.split(line, comments=True)
             if word.startswith("-") and word != "-m"}
    assert shown <= options(command)


def test_every_option_the_text_names_exists():
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named and named <= set().union(*map(options, COMMANDS))


def test_environment_variables_are_read_somewhere():
    modules = [path for part in ("pipelines", "dashboard") for path in (ROOT / part).rglob("*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in modules)
    for name in set(re.findall(r"CONTACT_SHEET_[A-Z_]+", README)):
        assert f'"{name}"' in source, name
