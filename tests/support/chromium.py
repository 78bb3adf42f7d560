"""A headless Chromium, driven over a pipe with its DevTools protocol: open a page, measure, take pictures, print.

Expressions are evaluated by DevTools, outside of the page, so the page's Content-Security-Policy stays in force.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


class Page:
    """One tab. `requests` are the URLs that it asked for, `messages` what it logged."""

    def __init__(self, browser: Browser, target: str) -> None:
        self._browser = browser
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._loaded = False
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol in this tab, and note the events that come meanwhile."""
        answer = self._browser.call(method, session=self._session, **parameters)
        self._take_events()
        return answer

    def _take_events(self) -> None:
        events, self._browser.events = self._browser.events, []
        for event in events:
            if event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            elif event["method"] == "Page.loadEventFired":
                self._loaded = True
            elif event["method"] == "Log.entryAdded":
                self.messages.append(event["params"]["entry"]["text"])

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Open a file in a window of this width, and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.requests, self.messages = [], []
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._browser.receive()
            self._take_events()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        return self._bytes("Page.captureScreenshot", captureBeyondViewport=True)

    def pdf(self) -> bytes:
        """Return the page as it is printed on A4."""
        return self._bytes("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)

    def _bytes(self, method: str, **parameters: Any) -> bytes:
        return base64.b64decode(self.call(method, **parameters)["data"])


class Browser:
    """The process and its pipe; `events` are those that came since they were last cleared."""

    def __init__(self, home: Path) -> None:
        here_in, theirs_out = os.pipe()
        theirs_in, here_out = os.pipe()
        assert CHROMIUM is not None
        command = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *_FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        self._reader, self._writer = os.fdopen(here_in, "rb"), os.fdopen(here_out, "wb", buffering=0)
        self._received, self._last = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def receive(self) -> None:
        """Wait for one event."""
        self._note(self._next())

    def _note(self, answer: dict[str, Any]) -> None:
        if "method" in answer:
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            more = self._reader.read1(1 << 20)
            assert more, "chromium has ended"
            self._received += more
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def page(self) -> Page:
        """Return a new tab."""
        return Page(self, self.call("Target.createTarget", url="about:blank")["targetId"])

    def close(self) -> None:
        """End the process."""
        self._writer.close()
        self._reader.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """Run a browser with `home`, a new directory, as its profile."""
    browser = Browser(home)
    try:
        yield browser
    finally:
        browser.close()
