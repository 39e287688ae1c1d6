"""A headless Chromium for tests: the DevTools protocol over a pipe, with the standard library alone."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
SECONDS = 60  # to wait for an answer
START = """
import os, sys
commands, answers = (os.dup(os.dup(os.dup(int(pipe)))) for pipe in sys.argv[1:3])  # out of the way of 3 and 4
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # moves the pipes to where the browser expects them


class Browser:
    """One tab of a browser; `events` holds the events that it reported.

    Commands are JSON that ends in a zero byte, on the browser's file descriptor 3; answers come from its 4
    (https://chromedevtools.github.io/devtools-protocol/).
    """

    def __init__(self, profile: Path) -> None:
        (commands, self._commands), (self._answers, answers) = os.pipe(), os.pipe()
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(commands), str(answers), *command],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.events: list[dict[str, Any]] = []
        self._number, self._rest, self._session = 0, b"", ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=SECONDS)
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url: str, width: int, media: str = "screen", scheme: str = "light") -> None:
        """Open a page at a width, on screen or as print, and wait until its pictures are cropped."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.show(media, scheme)
        self.go(url)
        ready = "'ready' in document.documentElement.dataset"
        self.run(f"new Promise((done) => {{ const look = () => {ready} ? done() : setTimeout(look, 10); look(); }})")

    def go(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        told = len(self.events)
        self.send("Page.navigate", url=url)
        while all(event.get("method") != "Page.loadEventFired" for event in self.events[told:]):
            self.events.append(self._next())

    def show(self, media: str, scheme: str) -> None:
        """Show the page on screen or as print, in light or dark mode."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", media=media, features=[feature])
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # styles settle

    def press(self, key: str) -> None:
        """Press a key."""
        codes = {"Enter": 13, " ": 32, "ArrowRight": 39, "Tab": 9}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def _next(self) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            assert ready, f"the browser did not answer for {SECONDS} seconds"
            self._rest += os.read(self._answers, 2**20)
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))
