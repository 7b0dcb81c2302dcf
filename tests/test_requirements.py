"""requirements.txt against what the code imports."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONAL = {"mlflow", "ray", "torchao"}  # looked for before it is imported


def requirements(text):
    return {name.lower().replace("_", "-") for name in re.findall(r"^([\w-]+)==", text, re.M)}


def test_every_import_is_a_requirement_and_the_other_way_round():
    imported = set()
    for path in (*ROOT.glob("pipelines/**/*.py"), *ROOT.glob("dashboard/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "pipelines", "dashboard", *OPTIONAL}
    packages = packages_distributions()
    needed = {packages[name][0].lower().replace("_", "-") for name in imported}
    direct, _, _ = (ROOT / "requirements.txt").read_text("utf-8").partition("\n\n")
    assert requirements(direct) == needed
