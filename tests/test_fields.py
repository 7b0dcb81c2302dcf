"""What a field of the request is for stands at the field, and nowhere else."""

import ast
from pathlib import Path

import pytest

from pipelines import RunRequest, fields
from pipelines.models.identity import identity
from pipelines.request import DEFAULTS, ROLES, SETUP, Role

ROOT = Path(__file__).parents[1]
LISTS = {name: value for name, value in vars(fields).items()
         if name.isupper() and isinstance(value, tuple) and name not in ("SETUP", "WEIGHTS")}
# Lists that say something of their own: an order of widgets, columns of a table, arguments.
OTHER_LISTS = {"dashboard/form/axes.py": 1, "dashboard/form/restore.py": 1,
               "dashboard/views/compare.py": 1, "pipelines/engine.py": 1, "pipelines/making.py": 2,
               "pipelines/new_request.py": 1, "pipelines/provenance/programs.py": 2,
               "pipelines/provenance/record.py": 2, "pipelines/study/outlook.py": 1}
# Requests and their identities, on a machine made up, as the code hashed them before `Role`.
IDENTITIES = {
    "60dc90ed4a65047d4708557fd7feb9cb569d0f2132e1357405b1b2837e32049e": {
        "prompt": "a red car", "scheduler": "ddim", "num_inference_steps": 20,
        "guidance_scale": 5.0, "height": 64, "width": 64},
    "fee1315bad06b8d4126d0681cdae6ee1a172bb53a24e622faca71cbb0083f19f": {
        "model_id": "sdxl-turbo", "revision": "abc", "prompt": "x", "scheduler": "euler_a",
        "num_inference_steps": 1, "guidance_scale": 0.0, "seed": 7,
        "scheduler_options": {"timestep_spacing": "trailing"}, "torch_dtype": "float16",
        "attention_backend": "eager", "height": 512, "width": 512},
    "c18db8b398b12cb921efb7c7757d004bc1017897c37f6f8e8956019f7ad61d81": {
        "task": "inpainting", "prompt": "y", "scheduler": "dpmpp_2m_karras",
        "num_inference_steps": 30, "guidance_scale": 7.5, "image": "a" * 64,
        "mask_image": "b" * 64,
        "strength": 0.8, "mask_feather": 3, "padding_mask_crop": 16, "masked_content": "fill",
        "differential": True, "loras": ["style=0.5"], "cache": "first_block_cache",
        "compile": True},
}


def test_every_field_has_a_meaning_and_one_role():
    for name, field in RunRequest.model_fields.items():
        assert [type(mark) for mark in field.metadata].count(Role) == 1, name
        assert field.description.endswith((".", ")")) and len(field.description) > 10, name
    assert list(ROLES) == list(DEFAULTS) == list(RunRequest.model_fields)


def test_roles_agree_with_each_other():
    for name, role in ROLES.items():
        assert role.setup in ("", *SETUP), name
        assert not role.cost_only or role.method, name
        assert not (role.picture and role.axis), name
        assert not (role.picture and role.text), name
    assert set(fields.EXECUTION_FIELDS) <= set(fields.METHOD_FIELDS) & set(fields.MODEL_FIELDS)
    assert RunRequest().weights.keys() <= set(ROLES)


def test_every_list_names_fields_of_the_request():
    assert len(LISTS) > 10
    for name, listed in LISTS.items():
        assert listed and set(listed) <= set(RunRequest.model_fields), name


@pytest.mark.parametrize("path", [
    path for folder in ("pipelines", "dashboard") for path in sorted((ROOT / folder).rglob("*.py"))
    if path != ROOT / "pipelines" / "request.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_else_keeps_a_list_of_fields(path):
    """Three names of fields in a row, and no other text among them, are such a list."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            texts = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            listed = [text for text in texts if text in ROLES]
            if len(listed) > 2 and listed == texts:
                found.append(f"line {node.lineno}: {listed}")
    assert len(found) == OTHER_LISTS.get(str(path.relative_to(ROOT)), 0), found


@pytest.mark.parametrize("expected", IDENTITIES)
def test_old_rows_keep_their_identity(expected, monkeypatch):
    machine = {"device_name": "a CPU", "torch": "2.9", "diffusers": "0.38",
               "transformers": "4.57"}
    monkeypatch.setattr("pipelines.models.identity.environment", lambda device: machine)
    monkeypatch.setattr("pipelines.models.identity.ENGINE", 2)  # as it was then
    request = RunRequest(**IDENTITIES[expected])
    contents = ["lora"] * len(request.loras)
    assert identity(request, "content", contents, "cpu", "float32") == expected
