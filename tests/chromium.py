"""A headless Chromium that a test drives: pages from disk, widths, scripts, screenshots.

It speaks Chromium's own DevTools protocol over two pipes, which needs no library. Nothing that it
does on its own calls a network, and no host name resolves.

    with Browser() as browser:
        page = browser.open(path, width=375)
        page.value("document.title")
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
    # This machine alone can be reached, for tests that serve pages.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)


def find() -> str:
    """Return where Chromium is; skip the test where it is not."""
    for name in NAMES:
        place = shutil.which(name)
        if place:
            return place
    pytest.skip("no Chromium here (apt-get install chromium)")


@dataclass
class Page:
    """An open page, and what it logged or asked for."""

    browser: Browser
    session: str
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, parameters, self)

    def value(self, expression: str) -> Any:
        """Return what an expression comes to, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go.

        Args:
            key: its name, as ``Tab``.
            code: Windows' number of it, by which Chromium knows what it does.
            text: what it writes, if anything.
        """
        names = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(image["data"]))


class Browser:
    """A running Chromium with a profile of its own, which ends and goes with the block."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_chromium, self._write = os.pipe()
        self._read, from_chromium = os.pipe()
        # Chromium reads its commands from descriptor 3 and answers on 4. A small program puts the
        # pipes there and becomes it, since Python must run nothing between fork and exec.
        place = (
            f"import os, sys; os.dup2({to_chromium}, 100); os.dup2({from_chromium}, 4);"
            " os.dup2(100, 3); os.close(100); os.execv(sys.argv[1], sys.argv[1:])"
        )
        profile = f"--user-data-dir={self._profile.name}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", place, find(), *FLAGS, profile, "about:blank"],
            pass_fds=(to_chromium, from_chromium),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_chromium)
        os.close(from_chromium)
        self._buffer = b""
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(timeout=20)
        self._profile.cleanup()

    def open(
        self, place: Path | str, *, width: int, fragment: str = "", script: bool = True
    ) -> Page:
        """Open a file or an address at a width, as a phone's or a desk's, and wait until it is
        loaded.
        """
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        address = place.resolve().as_uri() if isinstance(place, Path) else place
        page.call("Page.navigate", url=address + fragment)
        self._wait_for("Page.loadEventFired", page)
        return page

    def call(self, method: str, parameters: Mapping[str, Any], page: Page | None = None) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if page is not None:
            message["sessionId"] = page.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(page)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _wait_for(self, event: str, page: Page) -> None:
        while self._next(page).get("method") != event:
            pass

    def _next(self, page: Page | None) -> dict[str, Any]:
        """Read the next message, and keep what a page logged or asked for."""
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "Chromium has ended"
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        parameters = message.get("params", {})
        if page is not None:
            match message.get("method"):
                case "Runtime.exceptionThrown":
                    page.messages.append(str(parameters["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    page.messages.append(str(parameters["args"]))
                case "Log.entryAdded":
                    page.messages.append(parameters["entry"]["text"])
                case "Network.requestWillBeSent":
                    page.requests.append(parameters["request"]["url"])
                case "Page.javascriptDialogOpening":
                    page.messages.append(f"dialog: {parameters['message']}")
        return message
