"""The first process of an agent's jail: makes a repository without history, opens the way out, runs the agent.

Runs inside the jail as the interpreter's `-c` text: standard library only. A JSON object on standard input says what to
do: `argv` and `environment` of the agent, `files` to write first, and `gateway` with the Unix socket that was bound
into the jail and the port of the jail's own loopback that it is offered on (null where the agent reaches the gateway
itself). The exit code is the agent's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXCLUDED = "__pycache__/\n*.py[co]\n.pytest_cache/\n"
_GIT = {
    "GIT_AUTHOR_NAME": "given", "GIT_AUTHOR_EMAIL": "given@localhost", "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "given", "GIT_COMMITTER_EMAIL": "given@localhost",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def main() -> int:
    """Run the agent; its exit code, 128 + n after signal n."""
    job = json.load(sys.stdin)
    os.makedirs(job["folder"], exist_ok=True)
    os.chdir(job["folder"])
    for path, content in job["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    _commit_everything()
    if job["gateway"] is not None:
        _forward(job["gateway"]["socket"], job["gateway"]["port"])
    environment = {**os.environ, **job["environment"]}
    code = subprocess.run(job["argv"], stdin=subprocess.DEVNULL, env=environment, check=False).returncode
    return code if code >= 0 else 128 - code


def _commit_everything() -> None:
    environment = {**os.environ, **_GIT}
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["add", "-A", "-f"],
        ["commit", "-q", "--allow-empty", "-m", "The repository as it is given"],
    ):
        subprocess.run(["git", *arguments], check=True, env=environment, stdin=subprocess.DEVNULL)
    with open(".git/info/exclude", "a", encoding="utf-8") as file:
        file.write(_EXCLUDED)


def _forward(path: str, port: int) -> None:
    """Offer a Unix socket as a port of this jail's own loopback."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(64)
    threading.stack_size(256 << 10)
    threading.Thread(target=_accept, args=(listening, path), daemon=True).start()


def _accept(listening: socket.socket, path: str) -> None:
    while True:
        client, _ = listening.accept()
        gateway = socket.socket(socket.AF_UNIX)
        try:
            gateway.connect(path)
        except OSError:
            client.close()
            gateway.close()
            continue
        for source, target in ((client, gateway), (gateway, client)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: Any, target: Any) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
