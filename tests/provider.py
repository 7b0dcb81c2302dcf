"""A provider of hosted models on localhost, which speaks to the real huggingface_hub.

It has HF Inference's API at /models/OWNER/NAME, those of nscale, replicate and wavespeed as the
router has them (the last refuses to tell its result), and of the Hub what tells which provider runs
a model.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def png(seed: object = 0, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture whose colour depends on the seed."""
    colour = tuple(hashlib.sha256(str(seed).encode()).digest()[:3])
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@dataclass
class Reply:
    """What the next request gets in place of a picture; `go`: it waits for that first."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    go: threading.Event | None = None


@dataclass
class Asked:
    """One request that made it here."""

    path: str
    token: str | None
    body: dict


class Provider:
    """`replies` are given first, one a request; then pictures. `mapping`: provider -> task."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: deque[Reply] = deque()
        self.headers = {"x-compute-time": "0.25", "x-compute-type": "gpu"}
        self.mapping = {"hf-inference": "text-to-image"}
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,),
                                                                  {"provider": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            reply = self.replies.popleft() if self.replies else None
        try:
            if reply and reply.go:
                reply.go.wait(30)
            return reply if reply and (reply.body or reply.status != 200) else self.picture(asked)
        finally:
            with self._lock:
                self.at_once -= 1

    def picture(self, asked: Asked) -> Reply:
        parameters = asked.body.get("parameters") or asked.body.get("input") or asked.body
        size = (parameters.get("width") or 64, parameters.get("height") or 64)
        data = png(json.dumps(asked.body, sort_keys=True), size)
        if "nscale" in asked.path:
            content = {"data": [{"b64_json": base64.b64encode(data).decode()}]}
            return Reply(body=json.dumps(content).encode(), headers=self.headers)
        if "wavespeed" in asked.path:
            content = {"data": {"urls": {"get": "/wavespeed/result"}}}
            return Reply(body=json.dumps(content).encode(), headers=self.headers)
        if "replicate" in asked.path:
            content = {"output": f"{self.url}/made.png"}
            return Reply(body=json.dumps(content).encode(), headers=self.headers)
        return Reply(body=data, headers={"content-type": "image/png"} | self.headers)


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(data) if data.startswith(b"{") else {"picture": hashlib.sha256(
            data).hexdigest()}
        self._send(self.provider.answer(
            Asked(self.path, self.headers.get("authorization"), body)))

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            content = {"id": "o/n", "pipeline_tag": "text-to-image", "inferenceProviderMapping": {
                name: {"status": "live", "providerId": "o/n", "task": task}
                for name, task in self.provider.mapping.items()}}
            self._send(Reply(body=json.dumps(content).encode(),
                             headers={"content-type": "application/json"}))
        elif "result" in self.path:
            self._send(Reply(429, b"too many questions", {"Retry-After": "0"}))
        else:
            self._send(Reply(body=png("made")))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in ({"content-length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # nobody waits for it any more
            self.wfile.write(reply.body)

    def log_message(self, *_: object) -> None:
        pass
