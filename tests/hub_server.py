"""A hub on this machine: the answers of the endpoints that huggingface_hub asks for, from commits in memory."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class Hub:
    """Repositories by name, each a list of commits (hash, contents by path); token: of those who may write."""

    def __init__(self, token):
        self.token = token
        self.repositories = dict[str, list[tuple[str, dict[str, bytes]]]]()
        self.asked = list[str]()
        self.private = set[str]()

    def commit(self, repo, files):
        """Add a commit; returns its hash."""
        commits = self.repositories.setdefault(repo, [])
        name = hashlib.sha1(f"{len(commits)} {sorted(files.items())}".encode()).hexdigest()
        commits.append((name, files))
        return name

    def files(self, repo, revision):
        """The commit of a branch or hash."""
        commits = self.repositories[repo]
        if revision == "main":
            return commits[-1]
        return next((one for one in commits if one[0] == revision), None)


def git_hash(contents):
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


@contextmanager
def running(hub):
    """The address of the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Missing(Exception):
    """What the hub does not have, by the code of its answer."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        self._answer()

    do_HEAD = do_GET

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body=b""):
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.command == "POST":
            self._write(parts, body)
            return
        try:
            if parts[:2] == ["api", "models"]:
                self._describe("/".join(parts[2:4]), parts[4:])
            else:
                self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        except _Missing as missing:
            self._refuse(404, str(missing))

    def _send(self, value, status=200, **headers):
        contents = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(contents)

    def _refuse(self, status, code, text=""):
        said = text or code
        self._send({"error": said}, status, X_Error_Code=code, X_Error_Message=said)

    def _found(self, repo, revision):
        if repo not in self.hub.repositories:
            raise _Missing("RepoNotFound")
        if not self.hub.repositories[repo]:
            return "0" * 40, {}
        commit = self.hub.files(repo, revision)
        if commit is None:
            raise _Missing("RevisionNotFound")
        return commit

    def _describe(self, repo, rest):
        commit, files = self._found(repo, rest[1] if len(rest) > 1 else "main")
        about: object = {
            "id": repo,
            "modelId": repo,
            "sha": commit,
            "siblings": [{"rfilename": name} for name in files],
            "tags": [],
            "private": repo in self.hub.private,
        }
        if rest[:1] == ["tree"]:
            about = [
                {"type": "file", "path": name, "size": len(held), "oid": git_hash(held)}
                for name, held in files.items()
            ]
        self._send(about)

    def _file(self, repo, revision, name):
        commit, files = self._found(repo, revision)
        held = files[name]
        self._send(held, ETag=f'"{git_hash(held)}"', X_Repo_Commit=commit)

    def _write(self, parts, body):
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            given = self.headers.get("Authorization", "none")
            self._refuse(403, "Forbidden", f"not allowed with {given}")
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            status = 409 if repo in self.hub.repositories else 200
            if status == 200 and asked.get("visibility") == "private":
                self.hub.private.add(repo)
            self.hub.repositories.setdefault(repo, [])
            self._send({"url": f"http://{self.headers['Host']}/{repo}", "name": repo}, status)
        elif parts == ["api", "validate-yaml"]:
            self._send({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._send(
                {
                    "files": [
                        {"path": name, "uploadMode": "regular", "shouldIgnore": False}
                        for name in names
                    ]
                }
            )
        else:
            self._commit("/".join(parts[2:4]), body)

    def _commit(self, repo, body):
        commits = self.hub.repositories[repo]
        files = dict(commits[-1][1]) if commits else {".gitattributes": b""}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        name = self.hub.commit(repo, files)
        place = f"http://{self.headers['Host']}/{repo}/commit/{name}"
        self._send({"commitUrl": place, "commitOid": name, "success": True})
