"""A hub on loopback: the addresses of Hugging Face's that reading and sending a model use."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

Files = dict[str, bytes]


class Hub:
    """Its repositories: name → revision → path → bytes; `asked` lists every request."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Files]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}

    def files(self, repo: str, revision: str) -> Files | None:
        """By branch or by commit."""
        revisions = self.repos.get(repo, {})
        return next((f for name, f in revisions.items() if revision in (name, commit_of(f))), None)


def commit_of(files: Files) -> str:
    digest = hashlib.sha1()
    for path in sorted(files):
        digest.update(path.encode() + files[path])
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=code)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        found = re.fullmatch(r"/api/models/(\w+/[\w.-]+)/(revision|tree)/(.+?)", path)
        file = re.fullmatch(r"/(\w+/[\w.-]+)/resolve/((?:refs/pr/)?[^/]+)/(.+)", path)
        if not found and not file:
            return self.refuse(404, "EntryNotFound")
        repo = (found or file)[1]
        revision = found[3] if found else file[2]
        files = self.hub.files(repo, revision)
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if repo not in self.hub.repos:
            return self.refuse(401, "RepoNotFound")
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if found and found[2] == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.json({"id": repo, "sha": commit_of(files), "siblings": siblings})
        if found:
            return self.json([entry(name, content) for name, content in files.items()])
        if file[3] not in files:
            return self.refuse(404, "EntryNotFound")
        content = files[file[3]]
        about = dict(ETag=f'"{blob(content)}"', X_Repo_Commit=commit_of(files))
        return self.answer(200, content, Content_Type="application/octet-stream", **about)

    def do_POST(self):
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.hub.repos:
                return self.json({"error": "exists", "url": f"{self.here}/{repo}"}, 409)
            self.hub.repos[repo] = {"main": {}}
            self.hub.private[repo] = asked.get("visibility") == "private"
            return self.json({"url": f"{self.here}/{repo}"})
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(\w+/[\w.-]+)/(preupload|commit)/(.+)", path)
        if found is None or found[1] not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        if found[2] == "preupload":
            rows = json.loads(body)["files"]
            modes = [dict(path=r["path"], uploadMode="regular", shouldIgnore=False) for r in rows]
            return self.json({"files": modes})
        files = dict(self.hub.repos[found[1]].get(found[3], {}))
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
        self.hub.repos[found[1]][found[3]] = files
        url = f"{self.here}/{found[1]}/commit/{commit_of(files)}"
        return self.json({"commitUrl": url, "commitOid": commit_of(files), "success": True})

    @property
    def here(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict:
    return {"type": "file", "path": path, "size": len(content), "oid": blob(content)}


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Its address while it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
