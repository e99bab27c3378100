"""The web page as people use it, in a real browser."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, PHONE, Site, site_of
from running_server import FOLDER
from saliency_r1.wording import shown_name

FIRST_PAGE_SECONDS = 5
TOKEN = "correct-horse-battery"
SERIOUS = ("serious", "critical")

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install --no-install-recommends chromium"
)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SALIENCY_R1_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def site(shots: Path) -> Iterator[Site]:
    with site_of(shots, "--max-bytes", "3000000", "--max-seconds", "120") as site:
        yield site


def choose(page: Any, *files: Path | str) -> None:
    page.locator("#files").set_input_files([str(file) for file in files])


def photo(name: str) -> Path:
    return FOLDER / name


def status(page: Any, words: str) -> str:
    line = page.locator("#status").filter(has_text=re.compile(words))
    line.wait_for()
    return line.inner_text()


def downloaded(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as downloading:
        page.locator(f"#{button}").click()
    path = folder / downloading.value.suggested_filename
    downloading.value.save_as(path)
    return path


def shown_size(page: Any, picture: str = "after") -> list[int]:
    return page.locator(f"#{picture}").evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    )


def test_the_main_subject_and_its_files(site: Site, tmp_path: Path) -> None:
    # CPU time, unlike the clock's, does not depend on what else runs. It counts the model's loading, too.
    assert site.busy <= FIRST_PAGE_SECONDS
    page = site.open()
    choose(page, photo("chelsea.png"))
    assert status(page, "Done: ").startswith("Done: 1 photo in")
    assert re.match(r".+ \(0\.\d\d of 1\): the overlap \(IoU\)", page.locator("#confidence").inner_text())
    assert page.locator("#reason").inner_text()
    assert shown_size(page) == shown_size(page, "before") == [451, 300]
    for kind, mode in (("mask", "L"), ("cutout", "RGBA")):
        path = downloaded(page, f"save-{kind}", tmp_path)
        assert path.name == f"chelsea_{kind}.png"
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == (mode, (451, 300))
    described = json.loads(downloaded(page, "save-json", tmp_path).read_text())
    named = described["instances"][0]["expression"]
    assert page.locator("#found").inner_text() == shown_name(named)
    page.screenshot(path=site.shots / "main-subject.png", full_page=True)
    page.context.close()


def test_the_slider_compares_with_the_original(site: Site) -> None:
    page = site.open()
    choose(page, photo("chelsea.png"))
    status(page, "Done: ")
    before, slider = page.locator("#before"), page.get_by_role("slider")
    assert "chelsea" in before.get_attribute("alt")
    slider.focus()
    widths = []
    for key in ("Home", "End"):
        page.keyboard.press(key)
        clipped = before.evaluate("one => getComputedStyle(one).clipPath")
        widths.append(clipped)
    assert widths[0] != widths[1]
    assert "100 percent original" in slider.get_attribute("aria-valuetext")
    for name, alternative in (("Original", "The photo chelsea"), ("Mask", "Mask of chelsea: ")):
        page.get_by_role("radio", name=name).check()
        page.locator(f"#after[alt^='{alternative}']").wait_for()
        assert slider.is_visible() == (name == "Mask")
        assert not page.get_by_role("group", name="Background of the cut-out").is_visible()
    page.screenshot(path=site.shots / "mask.png", full_page=True)
    page.context.close()


def test_a_cut_out_on_a_colour(site: Site, tmp_path: Path) -> None:
    page = site.open()
    choose(page, photo("chelsea.png"))
    status(page, "Done: ")
    assert "conic" in page.locator("#frame").evaluate("one => getComputedStyle(one).backgroundImage")
    plain = np.asarray(Image.open(downloaded(page, "save-cutout", tmp_path)))
    page.locator("#colour").fill("#2040a0")
    assert page.get_by_role("radio", name="Own colour").is_checked()
    path = downloaded(page, "save-cutout", tmp_path)
    coloured = np.asarray(Image.open(path).convert("RGBA"))
    assert (coloured[..., 3] == 255).all()
    clear, full = plain[..., 3] == 0, plain[..., 3] == 255
    assert clear.any()
    assert (coloured[clear][:, :3] == (0x20, 0x40, 0xA0)).all()
    assert (coloured[full][:, :3] == plain[full][:, :3]).all()
    page.screenshot(path=site.shots / "colour.png", full_page=True)
    page.context.close()


def test_one_of_several_objects(site: Site, tmp_path: Path) -> None:
    page = site.open()
    page.get_by_role("tab", name="Separate objects").click()
    page.get_by_role("button", name="astronaut").click()
    status(page, "Done: ")
    page.screenshot(path=site.shots / "separate-objects.png", full_page=True)
    objects = page.get_by_role("group", name="Objects").get_by_role("radio")
    assert objects.count() > 2
    every = np.asarray(Image.open(downloaded(page, "save-cutout", tmp_path)))[..., 3]
    objects.nth(1).check()
    page.locator("#after[alt^='Cut-out of astronaut']").wait_for()
    mask = downloaded(page, "save-mask", tmp_path)
    cutout = downloaded(page, "save-cutout", tmp_path)
    assert (mask.name, cutout.name) == ("astronaut_mask_1.png", "astronaut_cutout_1.png")
    alone, inside = np.asarray(Image.open(cutout))[..., 3], np.asarray(Image.open(mask)) >= 128
    assert 0 < (alone > 127).sum() < (every > 127).sum()
    assert not (alone > 127)[~inside].any()
    page.screenshot(path=site.shots / "one-object.png", full_page=True)
    page.context.close()


def test_the_common_subject_on_a_phone(site: Site) -> None:
    page = site.open(**PHONE)
    choose(page, photo("motorcycle_left.png"))
    status(page, "Done: ")
    page.wait_for_timeout(1000)  # the results come into view smoothly
    top = page.locator("#output").evaluate("one => one.getBoundingClientRect().top")
    assert -1 <= top < 60
    page.get_by_role("tab", name="Common subject").click()
    assert page.get_by_role("alert").inner_text() == (
        "One photo has nothing to share. Add at least one more photo."
    )
    assert page.get_by_role("button", name="Find the common subject").is_disabled()
    choose(page, photo("motorcycle_right.png"))
    status(page, "Done: 2 photos in")
    assert not page.get_by_role("alert").is_visible()
    page.locator("#title", has_text="motorcycle_left").wait_for()
    page.get_by_role("button", name="motorcycle_right done").click()
    page.locator("#title", has_text="motorcycle_right").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.screenshot(path=site.shots / "phone.png", full_page=True)
    page.context.close()


def test_photos_follow_to_the_next_tab(site: Site) -> None:
    page = site.open()
    choose(page, photo("coffee.png"), photo("rocket.jpg"))
    status(page, "Done: 2 photos")
    page.get_by_role("tab", name="Separate objects").click()
    assert "Press “Find the objects”" in status(page, "Your photos are here")
    assert page.locator("#photos li").count() == 2
    page.get_by_role("button", name="Find the objects").click()
    status(page, "Done: 2 photos")
    page.get_by_role("tab", name="Main subject").click()
    status(page, "These photos are done")
    assert page.locator("#result").is_visible()
    page.context.close()


def test_a_broken_photo_does_not_reject_the_others(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo("coffee.png").read_bytes()[:50_000])
    page = site.open()
    choose(page, photo("chelsea.png"), broken, cut, photo("coffee.png"))
    assert status(page, "Done: ").endswith("2 photos failed: see the list.")
    states = page.locator("#photos .state").all_inner_texts()
    assert (states[0], states[3]) == ("done", "done")
    assert "not a picture" in states[1]
    assert states[2] not in ("done", "working")
    page.screenshot(path=site.shots / "broken.png", full_page=True)
    page.get_by_role("tab", name="Common subject").click()
    page.get_by_role("button", name="Find the common subject").click()
    assert "Done: 2 photos" in status(page, "failed")
    page.get_by_role("button", name="Remove chelsea").click()
    page.get_by_role("button", name="Find the common subject").click()
    assert "Not done" in status(page, "failed")
    assert "no other photo of the group" in page.locator("#photos .state").last.inner_text()
    page.context.close()


def test_a_file_beyond_the_limit(site: Site, tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    huge.write_bytes(bytes(4_000_000))
    page = site.open()
    choose(page, huge)
    status(page, "Not done")
    assert "larger than the limit" in page.locator("#photos .state").inner_text()
    page.get_by_role("button", name="chelsea").first.click()  # and the server goes on
    status(page, "Done: 1 photo")
    page.context.close()


def test_all_results_are_one_archive(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "chelsea.jpg"
    Image.open(photo("coffee.png")).convert("RGB").save(other)
    page = site.open()
    choose(page, photo("chelsea.png"), other)
    status(page, "Done: 2 photos")
    with zipfile.ZipFile(downloaded(page, "save-all", tmp_path)) as archive:
        assert archive.testzip() is None
        endings = ("_mask.png", "_cutout.png", "_overlay.jpg", ".json")
        names = {f"{name}{ending}" for name in ("chelsea", "chelsea-2") for ending in endings}
        assert set(archive.namelist()) == names
        with archive.open("chelsea-2_mask.png") as file, Image.open(file) as mask:
            assert mask.size == (600, 400)
        assert json.loads(archive.read("chelsea-2.json"))["name"] == "chelsea-2"
    page.context.close()


def test_the_json_is_copied(site: Site) -> None:
    page = site.open(permissions=["clipboard-read", "clipboard-write"])
    choose(page, photo("chelsea.png"))
    status(page, "Done: ")
    page.get_by_role("button", name="Copy JSON").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert (copied["name"], copied["task"]) == ("chelsea", "sod")
    page.context.close()


def test_what_one_names_oneself(site: Site) -> None:
    page = site.open()
    choose(page, photo("chelsea.png"))
    status(page, "Done: ")
    page.get_by_label("Find something you name").fill("the cat")
    page.keyboard.press("Enter")
    page.locator("#found", has_text=re.compile("^the cat$")).wait_for()
    assert not page.locator("#reason").is_visible()
    page.screenshot(path=site.shots / "phrase.png", full_page=True)
    page.context.close()


def test_cancelling_stops_what_is_not_done(site: Site, tmp_path: Path) -> None:
    files = []
    for number in range(12):
        files.append(tmp_path / f"photo{number}.jpg")
        Image.open(photo("coffee.png")).convert("RGB").resize((1600, 1067)).save(files[-1])
    page = site.open()
    choose(page, *files)
    status(page, r"\d+ of 12 photos done")
    assert page.get_by_role("progressbar").is_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    status(page, "Cancelled")
    page.locator("#photos .state", has_text="cancelled").first.wait_for()
    assert "cancelled" in page.locator("#photos .state").last.inner_text()
    assert page.get_by_role("button", name="Cancel", exact=True).is_disabled()
    page.get_by_role("button", name="Remove all photos").click()
    page.get_by_role("button", name="chelsea").click()
    status(page, "Done: 1 photo")
    page.context.close()


def test_two_windows_at_once(site: Site, tmp_path: Path) -> None:
    pages = [site.open(), site.open()]
    for page, name in zip(pages, ("coffee.png", "rocket.jpg"), strict=True):
        choose(page, photo(name))
    for page, name in zip(pages, ("coffee", "rocket"), strict=True):
        status(page, "Done: ")
        assert downloaded(page, "save-mask", tmp_path).name == f"{name}_mask.png"
        page.context.close()


def test_by_keyboard_and_with_labels(site: Site) -> None:
    page = site.open()
    page.get_by_role("tab", name="Main subject").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Separate objects").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        if seen[-1] == "chelsea":
            break
    assert "files" in seen
    assert seen[-1] == "chelsea"
    page.keyboard.press("Enter")
    status(page, "Done: ")
    page.context.close()


@pytest.mark.parametrize("kind", ["desktop", "phone", "dark"])
def test_axe_finds_nothing_serious(site: Site, kind: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"desktop": {}, "phone": PHONE, "dark": {"color_scheme": "dark"}}[kind]
    page = site.open(**options)
    findings = [Axe().run(page)]
    choose(page, photo("coffee.png"), photo("chelsea.png"))
    for tab, go in (("Main subject", None), ("Separate objects", "Find the objects")):
        page.get_by_role("tab", name=tab).click()
        if go:
            page.get_by_role("button", name=go).click()
        status(page, "Done: 2 photos|are done")
        findings.append(Axe().run(page))
    page.screenshot(path=site.shots / f"axe-{kind}.png", full_page=True)
    page.context.close()
    for found in findings:
        serious = [one for one in found.response["violations"] if one["impact"] in SERIOUS]
        assert serious == [], "\n".join(f"{one['id']}: {one['nodes'][0]['html']}" for one in serious)
        assert any(one["id"] == "color-contrast" for one in found.response["passes"])


def test_nothing_is_asked_of_other_hosts(site: Site) -> None:
    page = site.open()
    for link in page.locator("link[href], script[src]").all():
        address = link.get_attribute("href") or link.get_attribute("src")
        assert not re.match(r"(https?:)?//", address), address
    page.context.close()
    assert site.elsewhere == []
    assert site.complaints == []


def test_confidence_in_words(site: Site) -> None:
    page = site.open()
    said = page.evaluate(
        "import('/page/viewer.js').then(viewer => [.95, .8, .6, .2, null].map(viewer.sureness))"
    )
    page.context.close()
    assert said[0] == "very sure (0.95 of 1)"
    assert len({one.partition(" (")[0] for one in said}) == 5


def test_a_page_behind_a_token(shots: Path, site: Site) -> None:
    with site_of(shots, token=TOKEN, browser=site.browser) as guarded:
        page = guarded.open(http_credentials={"username": "me", "password": TOKEN})
        choose(page, photo("chelsea.png"))
        status(page, "Done: ")
        page.context.close()
