"""The web page in a real browser: Debian's chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from processes import interruptible
from running_server import FOLDER
from saliency_r1.serving.page import sureness

CHROMIUM = Path("/usr/bin/chromium")
FIRST_PAGE_SECONDS = 8
PATIENCE_MS = 120_000

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install --no-install-recommends chromium"
)


@dataclass
class Site:
    """A browser, the page's address, where screenshots go, and what was asked of other hosts."""

    browser: Any
    url: str
    shots: Path
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, **options: Any) -> Any:
        context = self.browser.new_context(accept_downloads=True, **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.url)
        page.get_by_role("tab", name="One thing").wait_for()
        return page

    def _note(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            self.elsewhere.append(request.url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from playwright.sync_api import sync_playwright

    shots = Path(os.environ.get("SALIENCY_R1_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    shots.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0", "--max-bytes", "3000000"]
    command += ["--max-seconds", "120"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": ""}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        start = time.perf_counter()
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
        ) as process:
            try:
                assert process.stderr is not None
                site = Site(browser, process.stderr.readline().split()[-1], shots)
                page = site.open()
                times = psutil.Process(process.pid).cpu_times()
                seconds, busy = time.perf_counter() - start, times.user + times.system
                page.screenshot(path=shots / "first.png")
                page.context.close()
                print(f"first page after {seconds:.1f} s, {busy:.1f} s of CPU time; shots in {shots}")
                # CPU time, unlike the clock's, does not depend on what else runs; it counts the model's
                # loading beside the page, too.
                assert busy <= FIRST_PAGE_SECONDS
                yield site
            finally:
                process.terminate()
                assert process.wait(30) is not None
        browser.close()


def choose(page: Any, task: str, *files: Path | str) -> None:
    page.locator(f"#{task}-photos input[type=file]").set_input_files([str(file) for file in files])


def status(page: Any, task: str, words: str) -> str:
    line = page.locator(f"#{task}-status")
    line.get_by_text(re.compile(words)).wait_for()
    return line.inner_text()


def value(page: Any, name: str) -> str:
    return page.locator(f"#{name} textarea, #{name} input").first.input_value()


@needs_chromium
def test_one_thing(site: Site, tmp_path: Path) -> None:
    page = site.open()
    choose(page, "sod", FOLDER / "chelsea.png")
    status(page, "sod", "Done in")
    assert re.search(r"(sure|guess) \(0\.\d\d of 1\)", value(page, "sod-confidence"))
    assert value(page, "sod-reasoning")
    assert (
        page.locator("#sod-view img").evaluate("image => image.decode().then(() => image.naturalWidth)")
        == 451
    )
    for kind, mode in (("mask", "L"), ("cutout", "RGBA")):
        with page.expect_download() as downloading:
            page.locator(f"#sod-{kind}").click()
        path = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(path)
        assert path.name == f"chelsea_{kind}.png"
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == (mode, (451, 300))
    with page.expect_download() as downloading:
        page.locator("#sod-json").click()
    assert downloading.value.suggested_filename == "chelsea.json"
    page.screenshot(path=site.shots / "one-thing.png", full_page=True)
    page.context.close()


@needs_chromium
def test_each_thing_and_one_alone(site: Site) -> None:
    page = site.open()
    page.get_by_role("tab", name="Each thing").click()
    page.locator("#sis-example-0").click()
    status(page, "sis", "Done in")
    page.screenshot(path=site.shots / "each-thing.png", full_page=True)
    whole = page.locator("#sis-view img").get_attribute("src")
    choices = page.locator("#sis-choice").get_by_role("radio")
    assert choices.count() > 2
    page.locator("#sis-choice label").nth(1).click()
    page.wait_for_function(
        "whole => document.querySelector('#sis-view img').getAttribute('src') !== whole", arg=whole
    )
    page.screenshot(path=site.shots / "one-alone.png", full_page=True)
    with page.expect_download() as downloading:
        page.locator("#sis-mask").click()
    assert downloading.value.suggested_filename == "astronaut_mask_1.png"
    page.context.close()


@needs_chromium
def test_what_photos_share_on_a_phone(site: Site) -> None:
    page = site.open(viewport={"width": 375, "height": 740}, has_touch=True, is_mobile=True)
    page.get_by_role("tab", name="Shared").click()
    choose(page, "cosod", FOLDER / "motorcycle_left.png", FOLDER / "motorcycle_right.png")
    status(page, "cosod", "2 photos in")
    first = page.locator("#cosod-view img").get_attribute("src")
    page.locator("#cosod-gallery button img").nth(1).click()
    page.wait_for_function(
        "first => document.querySelector('#cosod-view img').getAttribute('src') !== first", arg=first
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.screenshot(path=site.shots / "phone.png", full_page=True)
    page.context.close()


@needs_chromium
def test_a_broken_and_a_huge_file(site: Site, tmp_path: Path) -> None:
    page = site.open()
    broken, huge = tmp_path / "broken.jpg", tmp_path / "huge.png"
    broken.write_bytes(b"no picture")
    huge.write_bytes(bytes(4_000_000))
    choose(page, "sod", broken)
    assert "broken: not a picture" in status(page, "sod", "Not done")
    page.screenshot(path=site.shots / "broken.png", full_page=True)
    page.reload()
    choose(page, "sod", huge)
    page.get_by_text(re.compile("exceed the maximum")).first.wait_for()
    page.screenshot(path=site.shots / "huge.png", full_page=True)
    page.reload()  # and the server goes on
    page.locator("#sod-example-1").click()
    status(page, "sod", "Done in")
    page.context.close()


@needs_chromium
def test_two_tabs_at_once(site: Site) -> None:
    pages = [site.open(), site.open()]
    for page, name in zip(pages, ("coffee.png", "rocket.jpg"), strict=True):
        choose(page, "sod", FOLDER / name)
    for page, name in zip(pages, ("coffee", "rocket"), strict=True):
        status(page, "sod", "Done in")
        with page.expect_download() as downloading:
            page.locator("#sod-mask").click()
        assert downloading.value.suggested_filename == f"{name}_mask.png"
        page.context.close()


@needs_chromium
def test_by_keyboard_and_with_labels(site: Site) -> None:
    page = site.open()
    page.get_by_role("tab", name="One thing").focus()
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("(document.activeElement.closest('[id^=sod-]') || {}).id || ''"))
        if seen[-1] == "sod-example-0":
            break
    assert "sod-photos" in seen
    assert seen[-1] == "sod-example-0"
    page.keyboard.press("Enter")
    status(page, "sod", "Done in")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea')]
            .filter(one => one.offsetParent !== null)
            .filter(one => !(one.innerText || one.ariaLabel || one.title
                || (one.labels && [...one.labels].some(label => label.innerText.trim()))))
            .map(one => one.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    page.context.close()


@needs_chromium
def test_nothing_is_asked_of_other_hosts(site: Site) -> None:
    page = site.open()
    for link in page.locator("link[href], script[src]").all():
        address = link.get_attribute("href") or link.get_attribute("src")
        assert not re.match(r"(https?:)?//(?!127\.0\.0\.1)", address), address
    page.context.close()
    assert site.elsewhere == []
    assert site.complaints == []


def test_confidence_in_words() -> None:
    said = [sureness(value) for value in (0.95, 0.8, 0.6, 0.2, None)]
    assert said[0] == "very sure (0.95 of 1)"
    assert len({one.partition(" (")[0] for one in said}) == 5
