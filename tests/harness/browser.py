"""A headless Chromium, spoken to over a pipe in the Chrome DevTools Protocol."""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds within which a page must have become what is waited for, on a busy machine too."""

_TURNED = {
    "Cannot find default execution context",
    "Execution context was destroyed.",
    "Inspected target navigated or closed",
}
"""What a script is answered that was to run while one page follows another."""

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
"""Chromium of this machine, if it has one."""


class Turned(AssertionError):
    """The page was left while something was asked of it."""


class Browser:
    """A browser with a profile of its own and one page."""

    def __init__(self, folder: Path) -> None:
        assert BINARY, "there is no Chromium here"
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={folder}"),
        ]
        # Chromium reads its descriptor 3 and writes its descriptor 4.
        plumbing = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", plumbing, "bash", BINARY, *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._unread = b""
        self._calls = 0
        self.complaints: list[str] = []
        """Uncaught errors, and what the browser refused or failed to load, as it says so."""
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def sign_in(self, url: str, username: str, password: str) -> None:
        """Fill the form as a person does; ends on the page of jobs."""
        self.open(f"{url}/login")
        self.fill("input[name=username]", username)
        self.fill("input[name=password]", password)
        self.click("button[type=submit]")
        self.wait_for("location.pathname === '/' && document.readyState === 'complete'")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show the page so large, in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Look until an expression is true of the page; what is not there yet is not true."""
        look = f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(Turned):
                if self.run(look):
                    return
            time.sleep(0.02)
        text = self.run("document.body?.innerText")
        raise AssertionError(f"waited in vain for {condition}; {self.complaints}; {text}")

    def wait_for_text(self, selector: str, text: str) -> None:
        wanted = json.dumps(text)
        self.wait_for(f"document.querySelector('{selector}').innerText.includes({wanted})")

    def text(self, selector: str) -> str:
        found: str = self.run(f"document.querySelector('{selector}').innerText")
        return found

    def click(self, selector: str) -> None:
        """Press what can be seen, as soon as it can."""
        self.click_on(f"document.querySelector('{selector}')")

    def click_on(self, element: str) -> None:
        """The same of what an expression finds.

        It is looked for and pressed in one step: pages put others in the place of what they show.
        """
        self.wait_for(
            f"((it) => it.checkVisibility() && !it.disabled && (it.click(), true))({element})"
        )

    def fill(self, selector: str, value: str) -> None:
        """Put a value into a field, as if it were typed or chosen; the focus is on it then."""
        self.wait_for(
            f"""((field) => {{
                field.focus();
                field.value = {json.dumps(value)};
                field.dispatchEvent(new Event('input', {{ bubbles: true }}));
                field.dispatchEvent(new Event('change', {{ bubbles: true }}));
                return true;
            }})(document.querySelector('{selector}'))"""
        )

    def press(self, key: str) -> None:
        """Press and release a key, such as ``Tab``, ``Enter``, ``Escape``."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        fields: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        if key == "Enter":
            fields["text"] = "\r"
        self._call("Input.dispatchKeyEvent", type="keyDown", **fields)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, path: Path) -> None:
        """Store a PNG of the whole page."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == self._calls:
                if "error" in told and told["error"]["message"] in _TURNED:
                    raise Turned(told["error"])
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        if told.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._from, 1 << 16)
            assert more, f"the browser ended with {self._process.poll()}"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told


def _pipe() -> tuple[int, int]:
    """Ends to read and to write, both beyond the descriptors that Chromium is given."""
    made = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in made]
    for end in made:
        os.close(end)
    return high[0], high[1]
