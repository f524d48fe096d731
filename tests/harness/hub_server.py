"""A small server that takes commits as Hugging Face's hub does, LFS included.

Files that the hub's client would send through Xet go through LFS, as they do where Xet is off.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

TOKEN = "hf_correct-horse-battery"
_LFS = (".safetensors", ".png", ".webp")


@dataclass
class Hub:
    """What the server holds."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    """Statuses with which the next commits are answered."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Content by SHA-256, until a commit names it."""


class HubServer(ThreadingHTTPServer):
    """Serves one ``Hub``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = Hub(f"http://127.0.0.1:{self.server_port}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.removeprefix("/api/models/").partition("/revision/")[0]
        if name not in self.hub.repositories:
            self.answer({"error": "Repository not found"}, 404)
            return
        files = [{"rfilename": each} for each in self.hub.repositories[name]]
        self.answer({"id": name, "sha": "0" * 40, "siblings": files})

    def do_PUT(self) -> None:
        digest, content = self.path.rpartition("/")[2], self.body()
        assert hashlib.sha256(content).hexdigest() == digest
        self.hub.stored[digest] = content
        self.answer({})

    def do_POST(self) -> None:
        path, content = urlsplit(self.path).path, self.body()
        if path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            self.answer(self.created(json.loads(content)))
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer({"objects": [*map(self.ticket, json.loads(content)["objects"])]})
        elif "/preupload/" in path:
            self.answer({"files": [*map(mode_of, json.loads(content)["files"])]})
        elif self.hub.failures:
            asked_with = self.headers.get("Authorization")  # some servers tell what they refuse
            self.answer({"error": f"not now, {asked_with}"}, self.hub.failures.pop(0))
        else:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            self.answer(self.committed(name, [*map(json.loads, content.splitlines())]))

    def created(self, asked: dict) -> dict:
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.private.setdefault(name, private)
        self.hub.repositories.setdefault(name, {})
        return {"url": f"{self.hub.url}/{name}", "name": name}

    def ticket(self, wanted: dict) -> dict:
        action = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": action}

    def committed(self, name: str, lines: list[dict]) -> dict:
        files = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        number = f"{len(self.hub.commits):040d}"
        url = f"{self.hub.url}/{name}/commit/{number}"
        return {"success": True, "commitUrl": url, "commitOid": number}

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, document: dict, status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status >= 400:
            self.send_header("X-Error-Message", str(document["error"]))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub of its own, as long as the block lasts."""
    server = HubServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def mode_of(file: dict) -> dict:
    mode = "lfs" if file["path"].endswith(_LFS) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
