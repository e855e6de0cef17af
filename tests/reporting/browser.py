"""A headless Chromium, driven over its DevTools pipe: no driver program and no further library is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_SECONDS = 180

# Chromium reads commands on descriptor 3 and answers on 4; the pipes may have any number before.
_ON_ITS_DESCRIPTORS = """
import fcntl, os, sys
high = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 20) for n in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of one browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number = 0
        self._answers: Queue[dict[str, Any]] = Queue()
        self.requests: list[str] = []
        """Every URL that the page asked for, blocked or not."""
        self.blocked: list[str] = []
        """Those that its own policy kept from being sent."""
        self._url_of: dict[str, str] = {}
        self.errors: list[str] = []
        """Uncaught exceptions, console errors and policy violations."""
        threading.Thread(target=self._listen, daemon=True).start()
        target = self._call("Target.createTarget", {"url": "about:blank"}, session=False)["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=False)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Load `url` and wait until the report says it is ready."""
        self._call("Page.navigate", {"url": "about:blank"})
        self._call("Page.navigate", {"url": url})
        self.wait("document.documentElement?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self._call(
            "Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {condition}; errors: {self.errors}")
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release one key."""
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, **text})
        self._call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    def size(self, width: int, height: int) -> None:
        """Set the window's size in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def screenshot(self, path: Path) -> None:
        """Save what is seen as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", {"format": "png"})["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None, *, session: bool = True) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            try:
                answer = self._answers.get(timeout=TIMEOUT_SECONDS)
            except Empty:
                raise AssertionError(f"the browser did not answer {method}") from None
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _listen(self) -> None:
        held = b""
        while chunk := os.read(self._read, 1 << 20):
            *messages, held = (held + chunk).split(b"\0")
            for raw in messages:
                message = json.loads(raw)
                if "id" in message:
                    self._answers.put(message)
                else:
                    self._note(message.get("method"), message.get("params", {}))

    def _note(self, method: str | None, data: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
            self._url_of[data["requestId"]] = data["request"]["url"]
        elif method == "Network.loadingFailed" and data.get("blockedReason") == "csp":
            self.blocked.append(self._url_of[data["requestId"]])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(data["exceptionDetails"])[:2000])
        elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "assert"):
            self.errors.append(json.dumps(data["args"])[:2000])
        elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.errors.append(json.dumps(data["entry"])[:2000])


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; skips the test, saying why, where none is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome is installed, so the rendered report is not looked at")
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    arguments = [
        sys.executable,
        "-c",
        _ON_ITS_DESCRIPTORS,
        str(to_browser),
        str(from_browser),
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        arguments,
        pass_fds=(to_browser, from_browser),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(from_us, to_us)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_us)
        os.close(to_us)
