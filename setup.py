"""Puts Streamlit's settings into the wheel; all else stands in pyproject.toml."""

from pathlib import Path
from shutil import copy

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithSettings(build_py):
    """Streamlit looks for its settings in the folder where it is started, and beside the script
    that it runs: the one in a checkout, the other where the wheel is installed."""

    def run(self) -> None:
        super().run()
        folder = Path(self.build_lib, "dashboard", ".streamlit")
        folder.mkdir(parents=True, exist_ok=True)
        copy(HERE / ".streamlit" / "config.toml", folder)


setup(cmdclass={"build_py": BuildWithSettings})
