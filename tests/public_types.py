"""The public names as a type checker sees them; mypy reads this file (`make lint`), nothing runs
it."""

from pathlib import Path
from typing import Any, assert_type

from PIL.Image import Image

import pipelines as cs

request = cs.RunRequest(prompt="a red car", num_inference_steps=4, guidance_scale=5.0, seed=1)
comparison = cs.Comparison.parse(request, ["guidance_scale=1,3,7"], skip=["guidance_scale>5"])
assert_type(comparison.cells, tuple[cs.Cell, ...])
assert_type(cs.parse_axis("seed=1..3", request), cs.Axis)

engine = cs.Engine(Path("home"), device="cpu")
assert_type(engine.check(request), cs.RunRequest)
assert_type(engine.run(request), cs.Run)
assert_type(engine.run(request).image_sha256, str | None)
assert_type(engine.chain(request, [{"strength": 0.5}]), list[cs.Run])
assert_type(engine.compare(comparison, shared=True), list[cs.Run | None])

result = cs.compare("postcards", "a red car", scheduler=["ddim", "euler"], seed=0)
assert_type(result, cs.ComparisonResult)
assert_type(result.comparison, cs.Comparison)
assert_type(result.pictures, list[Image | None])
assert_type(result.sheet(1), Image)
assert_type(result.measure(repeats=2).to_html("sheet.html"), str)
assert_type(result.recipe(), dict[str, Any])

try:
    cs.compare(["postcards", "postcards-ddpm"], seed=range(3))
except cs.PipelineError as error:
    assert_type(error, cs.PipelineError)
