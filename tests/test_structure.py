"""What may import what, which names stay at home, how long a file may be: read, not run."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "dashboard")

# Each imports its own line and those above it, never one below, not even by way of another.
LAYERS = (
    ("pipelines.errors",),
    ("pipelines.request", "pipelines.schedulers", "pipelines.run_log"),
    ("pipelines.models",),
    ("pipelines.painting",),
    ("pipelines.inpainting",),
    ("pipelines.engine", "pipelines.grid"),
    ("pipelines.cluster", "pipelines.jobs"),
    ("pipelines.cli", "dashboard"),
)
# Private names of torch and diffusers that are ours elsewhere.
THEIRS = {"tensor._version", "scheduler._timesteps"}
LONGEST = 450
LONGER = {"pipelines/postcards/painter.py"}  # what each subject and place looks like


def files(*suffixes: str) -> list[Path]:
    return [path for folder in (*PACKAGES, "tests") for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in suffixes]


@cache
def sources() -> dict[str, ast.Module]:
    """The name of every module of the two packages -> its code."""
    trees = {}
    for path in files(".py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in PACKAGES:
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(path.read_text("utf-8"))
    return trees


def import_statements(node: ast.AST, in_functions: bool):
    """The imports below a node, but those for a type checker, which never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from import_statements(child, in_functions)


@cache
def imports(in_functions: bool) -> dict[str, set[str]]:
    """module -> the modules it imports: at the top only, or anywhere."""
    graph: dict[str, set[str]] = {}
    for module, tree in sources().items():
        graph[module] = set()
        for statement in import_statements(tree, in_functions):
            for alias in statement.names:
                if isinstance(statement, ast.Import):
                    graph[module].add(alias.name)
                else:
                    inner = f"{statement.module}.{alias.name}"
                    graph[module].add(inner if inner in sources() else statement.module)
    return graph


def paths_from(module: str) -> dict[str, list[str]]:
    """What a module imports, itself or by way of others -> the way there."""
    ways, queue = {module: [module]}, [module]
    for at in queue:
        for target in sorted(imports(True).get(at, ())):
            if target not in ways:
                ways[target] = [*ways[at], target]
                queue.append(target)
    return ways


def within(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def test_imports_at_the_top_have_no_circle():
    graph = {module: {target for target in targets if target in sources()}
             for module, targets in imports(False).items()}
    assert len(graph) > 60 and sum(map(len, graph.values())) > 200
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("number", range(len(LAYERS)), ids=lambda number: LAYERS[number][0])
def test_imports_point_one_way(number):
    later = tuple(part for layer in LAYERS[number + 1:] for part in layer)
    modules = [module for module in sources() if within(module, LAYERS[number])]
    assert modules
    wrong = [way for module in modules for target, way in paths_from(module).items()
             if within(target, later)]
    assert not wrong, "\n".join(" -> ".join(way) for way in wrong)


def test_the_engine_knows_no_page():
    for module, targets in imports(True).items():
        if module.startswith("pipelines"):
            assert not {t.split(".")[0] for t in targets} & {"dashboard", "streamlit"}, module


def private_names(tree: ast.Module) -> set[str]:
    """The names with an underscore in front that a module gives to something."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def test_private_names_stay_in_their_module():
    """None is imported, and none that another module gives is reached by a dot."""
    given = {module: private_names(tree) for module, tree in sources().items()}
    ours = set().union(*given.values())
    assert len(ours) > 100
    wrong = []
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES:
                wrong += [f"{module}: {alias.name}" for alias in node.names if alias.name[0] == "_"]
            elif (isinstance(node, ast.Attribute) and node.attr in ours - given[module]
                  and ast.unparse(node) not in THEIRS):
                wrong.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_long():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
               for path in files(".py", ".js")}
    assert len(lengths) > 100
    assert {name for name, lines in lengths.items() if lines > LONGEST} == LONGER
