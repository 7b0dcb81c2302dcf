"""How a pipeline combines the predictions of classifier-free guidance, read from its source."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from pipelines.models.signatures import method


@functools.cache
def guides_one_call(class_name: str) -> bool:
    """Whether a pipeline calls its denoiser once a step with the rows without and with the prompt,
    in this order, and combines the two halves as `a + scale * (b - a)`."""
    call = _call(class_name)
    if call is None:
        return False
    halves = {tuple(name.id for name in node.targets[0].elts) for node in ast.walk(call)
              if isinstance(node, ast.Assign) and _in_halves(node)}
    pairs = [pair for node in ast.walk(call) if (pair := _combined(node))]
    return bool(pairs) and all(pair in halves for pair in pairs)


def _call(class_name: str) -> ast.AST | None:
    if class_name != "ExactPipeline":
        return method(class_name, "__call__")
    source = Path(__file__).parents[1] / "laboratory" / "exact_models.py"
    own = next(node for node in ast.parse(source.read_text("utf-8")).body
               if isinstance(node, ast.ClassDef) and node.name == class_name)
    return next(node for node in own.body
                if isinstance(node, ast.FunctionDef) and node.name == "__call__")


def _in_halves(node: ast.Assign) -> bool:
    """`a, b = output.chunk(2)`."""
    target, value = node.targets[0], node.value
    return (isinstance(target, ast.Tuple) and len(target.elts) == 2
            and all(isinstance(name, ast.Name) for name in target.elts)
            and isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)
            and value.func.attr == "chunk" and [ast.unparse(a) for a in value.args] == ["2"])


def _combined(node: ast.AST) -> tuple[str, str] | None:
    """The names of `a + scale * (b - a)`."""
    match node:
        case ast.BinOp(ast.Name(a), ast.Add(), ast.BinOp(_, ast.Mult(), ast.BinOp(
                ast.Name(b), ast.Sub(), ast.Name(again)))) if again == a:
            return a, b
    return None
