"""The page in a real browser, for tests: Debian's chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from processes import interruptible

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 120_000
PHONE = {"viewport": {"width": 375, "height": 740}, "has_touch": True, "is_mobile": True}


@dataclass
class Site:
    """A browser, the page's address, where screenshots go, and what was asked of other hosts.

    Attributes:
        busy: CPU seconds of the server until the first page was shown.
    """

    browser: Any
    url: str
    shots: Path
    busy: float = 0.0
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, **options: Any) -> Any:
        """A new page in a context of its own, with options of Playwright's `new_context`."""
        context = self.browser.new_context(accept_downloads=True, **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.url)
        page.get_by_role("tab", name="Main subject").wait_for()
        page.get_by_text("Add photos, or choose an example.").wait_for()
        return page

    def _note(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            self.elsewhere.append(request.url)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of its own; Playwright allows one at a time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def site_of(shots: Path, *options: str, token: str = "", browser: Any = None) -> Iterator[Site]:
    """The real server with these options and a browser, a new one if none is given."""
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0", *options]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": token}
    with chromium() if browser is None else nullcontext(browser) as browser:
        start = time.perf_counter()
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
        ) as process:
            try:
                assert process.stderr is not None
                site = Site(browser, process.stderr.readline().split()[-1], shots)
                if not token:
                    site.open().context.close()
                    times = psutil.Process(process.pid).cpu_times()
                    site.busy = times.user + times.system
                    seconds = time.perf_counter() - start
                    print(
                        f"first page after {seconds:.1f} s, {site.busy:.1f} s of CPU time; shots in {shots}"
                    )
                yield site
            finally:
                process.terminate()
                assert process.wait(30) is not None
