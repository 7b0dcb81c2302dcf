"""A small Hub on localhost that speaks the Hub's API to the real huggingface_hub."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = (".safetensors", ".bin", ".png", ".ckpt")  # what git LFS keeps
REGEX_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Fault:
    """What goes wrong with requests whose path fits `match`, the next `times` times.

    `status`: answer that code instead; `cut`: close after so many bytes; `hold`: send so many
    bytes, then wait for `go`; `damage`: change a byte; `rate`: bytes per second; `no_range`:
    ignore Range.
    """

    match: str
    times: int = 1
    status: int | None = None
    headers: dict = field(default_factory=dict)
    cut: int | None = None
    hold: int | None = None
    rate: int | None = None
    damage: bool = False
    no_range: bool = False
    go: threading.Event = field(default_factory=threading.Event)


@dataclass
class Asked:
    """One request as it came in; `server` is hub or cdn."""

    server: str
    method: str
    path: str
    range: str | None
    token: str | None


class FakeHub:
    """Serves root/<author>/<name>/... ; `meta` adds to a repository's description.

    `accounts`: token -> name; `granted`: names that may read gated repositories; large files are
    redirected to a second server, which must never see the token.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.meta: dict[str, dict] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.accounts: dict[str, str] = {}
        self.granted: set[str] = set()
        self._lock = threading.Lock()
        self._servers = {}
        for name in ("hub", "cdn"):
            server = _Server(("127.0.0.1", 0), _Handler)
            server.hub, server.name = self, name
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._servers[name] = server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers['hub'].server_port}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers['cdn'].server_port}"

    def close(self) -> None:
        for fault in self.faults:
            fault.go.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetched(self, part: str, method: str = "GET") -> list[Asked]:
        """The requests whose path holds `part`."""
        return [a for a in self.asked if a.method == method and part in a.path]

    def fault(self, match: str, **what) -> Fault:
        self.faults.append(Fault(match, **what))
        return self.faults[-1]

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, path):
                    fault.times -= 1
                    return fault
        return None

    def repos(self) -> list[str]:
        return sorted(f"{path.parent.name}/{path.name}" for path in self.root.glob("*/*"))

    def files(self, repo: str) -> dict[str, Path]:
        folder = self.root / repo
        return {path.relative_to(folder).as_posix(): path
                for path in sorted(folder.rglob("*")) if path.is_file()}

    def commit(self, repo: str) -> str:
        names = "".join(f"{name} {etag(path)}\n" for name, path in self.files(repo).items())
        return hashlib.sha1(names.encode()).hexdigest()

    def info(self, repo: str, blobs: bool = False) -> dict:
        files, meta = self.files(repo), dict(self.meta.get(repo, {}))
        siblings = []
        for name, path in files.items():
            entry = {"rfilename": name}
            if blobs:
                entry |= {"size": path.stat().st_size, "blobId": etag(path)}
                if path.suffix in LARGE:
                    entry["blobId"] = "0" * 40  # of the pointer file
                    entry["lfs"] = {"sha256": etag(path), "size": path.stat().st_size,
                                    "pointerSize": 130}
            siblings.append(entry)
        card = meta.get("cardData", {})
        library = meta.setdefault("library_name", "diffusers")
        tags = [library, *meta.pop("tags", ())]
        if any(name.endswith(".safetensors") for name in files):
            tags.append("safetensors")
        if "license" in card:
            tags.append(f"license:{card['license']}")
        if "base_model" in card:
            tags.append(f"base_model:{card['base_model']}")
        index = files.get("model_index.json")
        config = {}
        if index:
            with open(index, encoding="utf-8") as file:
                config = {"diffusers": {"_class_name": json.load(file).get("_class_name")}}
        return {
            "_id": git_sha1(repo.encode())[:24], "id": repo, "modelId": repo,
            "author": repo.split("/")[0], "sha": self.commit(repo), "private": False,
            "gated": False, "tags": tags, "downloads": 0, "likes": 0, "trendingScore": 0,
            "pipeline_tag": "text-to-image", "siblings": siblings, "config": config,
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2025-01-01T00:00:00.000Z",
            **meta,
        }  # fmt: skip


@functools.lru_cache(maxsize=10_000)
def _etag(path: Path, size: int, changed: int) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest() if path.suffix in LARGE else git_sha1(content)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(path: Path) -> str:
    found = path.stat()
    return _etag(path, found.st_size, found.st_mtime_ns)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...  # a client may hang up at any time


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub: FakeHub = self.server.hub
        bearer = self.headers.get("Authorization", "")
        token = bearer.removeprefix("Bearer ") or None
        hub.asked.append(Asked(self.server.name, self.command, self.path,
                               self.headers.get("Range"), token))
        self.fault = hub.take_fault(self.path) if self.command == "GET" else None
        if self.fault and self.fault.status:
            self.json({"error": "so it is asked for"}, self.fault.status, self.fault.headers)
            return
        if token and token not in hub.accounts:
            self.error(401, "", "Invalid credentials in Authorization header")
            return
        self.account = hub.accounts.get(token)
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        if self.server.name == "cdn":
            self.content(hub.root / path.removeprefix("/blobs/"), "")
        elif path == "/api/whoami-v2":
            if self.account:
                self.json({"name": self.account, "type": "user"})
            else:
                self.error(401, "", "Invalid username or password.")
        elif path == "/api/models":
            self.listing(query)
        elif path.startswith("/api/models/"):
            self.about(path.removeprefix("/api/models/").split("/"), query)
        elif match := REGEX_RESOLVE.fullmatch(path):
            self.resolve(*match.groups())
        else:
            self.error(404, "", "Not found")

    def json(self, value, status: int = 200, headers: dict | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str) -> None:
        self.json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def listing(self, query: dict[str, list[str]]) -> None:
        def one(name: str, otherwise: str = "") -> str:
            return query.get(name, [otherwise])[0]

        hub = self.server.hub
        found = [hub.info(repo) for repo in hub.repos()
                 if not hub.meta.get(repo, {}).get("private")]
        found = [
            info for info in found
            if one("search").lower() in info["id"].lower()
            and one("author", info["author"]) == info["author"]
            and one("pipeline_tag", info["pipeline_tag"]) == info["pipeline_tag"]
            and set(query.get("filter", ())) <= set(info["tags"])
            and one("gated", str(bool(info["gated"])).lower()) == str(bool(info["gated"])).lower()
        ]  # fmt: skip
        found.sort(key=lambda info: info[one("sort", "trendingScore")], reverse=True)
        start, limit = int(one("cursor", "0")), int(one("limit", "1000"))
        headers = {}
        if start + limit < len(found):
            more = urllib.parse.urlencode({**query, "cursor": start + limit}, doseq=True)
            headers["Link"] = f'<{hub.url}/api/models?{more}>; rel="next"'
        found = found[start : start + limit]
        if wanted := query.get("expand"):
            found = [{k: v for k, v in info.items() if k in (*wanted, "_id", "id")}
                     for info in found]
        self.json(found, headers=headers)

    def may_read(self, repo: str) -> bool:
        """Whether this account may; says so itself where it may not."""
        hub, meta = self.server.hub, self.server.hub.meta.get(repo, {})
        if repo not in hub.repos() or meta.get("private") and not self.account:
            self.error(404, "RepoNotFound", "Repository not found")
            return False
        return True

    def passes_gate(self, repo: str) -> bool:
        hub = self.server.hub
        if not hub.meta.get(repo, {}).get("gated") or self.account in hub.granted:
            return True
        self.error(403 if self.account else 401, "GatedRepo",
                   f"Access to model {repo} is restricted.")
        return False

    def about(self, parts: list[str], query: dict[str, list[str]]) -> None:
        hub, repo, rest = self.server.hub, "/".join(parts[:2]), parts[2:]
        if not self.may_read(repo):
            return
        if rest[:1] == ["auth-check"]:
            if self.passes_gate(repo):
                self.json({})
        elif rest[:1] == ["revision"] and rest[1] not in ("main", hub.commit(repo)):
            self.error(404, "RevisionNotFound", "Revision not found")
        elif rest[:1] == ["tree"]:
            self.json([{"type": "file", "path": name, "size": path.stat().st_size,
                        "oid": etag(path)[:40]}
                       for name, path in hub.files(repo).items()])  # fmt: skip
        else:
            self.json(hub.info(repo, "blobs" in query))

    def resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.server.hub
        if not self.may_read(repo) or not self.passes_gate(repo):
            return
        commit, file = hub.commit(repo), hub.files(repo).get(name)
        if revision not in ("main", commit):
            self.error(404, "RevisionNotFound", "Revision not found")
        elif file is None:
            self.json({"error": "Entry not found"}, 404,
                      {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif file.suffix in LARGE:
            self.json({}, 302, {
                "Location": f"{hub.cdn}/blobs/{repo}/{urllib.parse.quote(name)}",
                "X-Repo-Commit": commit, "X-Linked-Etag": f'"{etag(file)}"',
                "X-Linked-Size": str(file.stat().st_size), "Accept-Ranges": "bytes",
            })  # fmt: skip
        else:
            self.content(file, commit)

    def content(self, file: Path, commit: str) -> None:
        """A file or a range of it, with whatever goes wrong on the way."""
        if not file.is_file():
            self.error(404, "", "Not found")
            return
        fault = self.fault or Fault("", 0)
        body = bytearray(file.read_bytes())
        if fault.damage:
            body[len(body) // 2] ^= 1
        start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and not fault.no_range:
            start = int(wanted[1])
        if start and start >= len(body):
            self.json({}, 416, {"Content-Range": f"bytes */{len(body)}"})
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{etag(file)}"')
        self.send_header("X-Repo-Commit", commit)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.send_body(bytes(body[start:]), fault)
        except OSError:  # the client hung up, as it may
            self.close_connection = True

    def send_body(self, body: bytes, fault: Fault) -> None:
        if fault.cut is not None:
            self.wfile.write(body[: fault.cut])
            self.close_connection = True
        elif fault.hold is not None:
            self.wfile.write(body[: fault.hold])
            self.wfile.flush()
            fault.go.wait(60)
            self.wfile.write(body[fault.hold :])
        elif fault.rate:
            piece = max(1, fault.rate // 20)
            for start in range(0, len(body), piece):
                self.wfile.write(body[start : start + piece])
                self.wfile.flush()
                fault.go.wait(0.05)
        else:
            self.wfile.write(body)
