"""What docs/ holds is what the code says and does today."""

import os
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000


def test_the_api_reference_is_up_to_date():
    written = runpy.run_path(str(DOCS / "reference.py"))["reference"]()
    assert (DOCS / "api.md").read_text("utf-8") == written, "run: python docs/reference.py"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One for all: it imports torch once."""
    folder = tmp_path_factory.mktemp("notebooks")
    manager = KernelManager(kernel_name="python3", transport="ipc" if os.name != "nt" else "tcp")
    manager.start_kernel(cwd=str(DOCS.parent), env=os.environ | {
        "CONTACT_SHEET_HOME": str(folder), "HF_HUB_OFFLINE": "1"})
    yield manager
    manager.shutdown_kernel(now=True)


def seen(notebook):
    """The outputs of each cell that are no progress: their kinds (a picture has PNG and JPEG, and
    is saved with one), and the texts without what changes from run to run."""
    return [[(output.output_type, sorted({*output.get("data", {})} - {"image/jpeg"}),
              re.sub(r"[0-9a-f]{12}|0x\w+|size=\S+", "", output.get("text", "")
                     or output.get("data", {}).get("text/plain", "")))
             for output in cell.outputs if output.get("name") != "stderr"]
            for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_show_what_they_are_saved_with(kernel, path):
    saved = nbformat.read(path, as_version=4)
    assert path.stat().st_size < MAX_BYTES
    fresh = nbformat.read(path, as_version=4)
    NotebookClient(fresh, km=kernel, timeout=120).execute(reset_kc=True)
    assert seen(fresh) == seen(saved)


def test_there_are_three_notebooks_and_none_names_this_machine():
    assert [path.stem for path in NOTEBOOKS] == [
        "comparing-schedulers", "in-painting-with-clicks", "introduction"]
    for path in NOTEBOOKS:
        text = path.read_text("utf-8")
        nbformat.validate(nbformat.reads(text, as_version=4))
        assert not re.search(r"/(?:home|root|tmp|work|Users)/|C:\\\\", text), path
