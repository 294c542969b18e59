"""A person at the page, in a real browser: keys, a phone, prompt injection, a server that dies."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rlaif.review.store import DESK, ReviewStore
from tests.review.helpers import labeled, serving

pytestmark = pytest.mark.slow

PAIR = re.compile(r"/pair/[0-9a-f]{12}$")
SEEN = re.compile(r"/pair/[0-9a-f]{12}/seen$")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    off = ("quic", "background-networking", "component-update", "sync", "gpu")
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in off)]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=flags)
        yield opened
        opened.close()


def decisions(run: Path) -> list[tuple[str, str]]:
    with closing(ReviewStore(run / DESK)) as store:
        return [(d.verdict, d.note) for d in store.decisions()]


def log_in(page: Page, url: str, name: str = "anna") -> None:
    page.goto(url)
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_url(PAIR)


def test_reviewing_by_keys_alone(browser: Browser, tmp_path: Path) -> None:
    run = labeled(tmp_path)
    with serving(run, "--budget", "6", "--overlap", "0") as (url, _):
        page = browser.new_page()
        log_in(page, url)
        page.keyboard.press("1")
        page.wait_for_url(SEEN)
        expect(page.get_by_label("verdicts")).to_contain_text("you Left")
        page.keyboard.press("Enter")
        page.wait_for_url(PAIR)
        page.keyboard.press("n")
        page.keyboard.type("hard to say: 1 2 0 s u")  # keys in the note are text
        page.keyboard.press("Escape")
        page.keyboard.press("0")
        page.wait_for_url(SEEN)
        page.keyboard.press("Enter")
        page.wait_for_url(PAIR)
        third = page.url
        page.keyboard.press("ArrowRight")
        page.wait_for_url(SEEN)
        page.keyboard.press("u")
        page.wait_for_url(third)
        page.keyboard.press("e")
        page.wait_for_url("**/edit")
        page.keyboard.press("Control+A")
        page.keyboard.type("what I would")
        page.reload()  # nothing half written is lost
        page.keyboard.press("End")
        page.keyboard.press("Control+End")
        page.keyboard.type(" say")
        page.keyboard.press("Control+Enter")
        page.wait_for_url(SEEN)
        expect(page.get_by_label("verdicts")).to_contain_text(", edited")
        page.keyboard.press("Enter")
        page.wait_for_url(PAIR)
        page.keyboard.press("Shift+ArrowLeft")  # extends a selection, decides nothing
        page.keyboard.press("n")
        page.keyboard.type("a note that goes along")
        page.keyboard.press("Escape")
        page.keyboard.press("e")
        page.wait_for_url("**/edit")
        expect(page.locator("#note")).to_have_value("a note that goes along")
        page.locator("h2").first.click()
        page.keyboard.press("Escape")
        page.wait_for_url(PAIR)
        skipped = page.url
        page.keyboard.press("Shift+S")
        page.wait_for_url(lambda url: url != skipped and bool(PAIR.search(url)))
        expect(page.get_by_label("progress")).to_contain_text("3 of 6 reviewed; 4 by you")
        page.close()
    said = decisions(run)
    assert [verdict for verdict, _ in said][1] == "tie"
    assert said[1][1] == "hard to say: 1 2 0 s u"
    assert [verdict for verdict, _ in said][3] == "skip"
    with closing(ReviewStore(run / DESK)) as store:
        assert [d.edited for d in store.decisions() if d.edited] == ["what I would say"]


def test_hostile_markup_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    run = labeled(tmp_path, prompt_injection=True)
    with serving(run, "--budget", "4") as (url, _):
        page = browser.new_page()
        said: list[str] = []
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
        log_in(page, url, "<b onmouseover=alert(1)>eve</b>")
        expect(page.locator("#left")).to_contain_text("<script>window.pwned = 1</script>")
        for key, then in (("d", PAIR), ("e", "**/edit"), ("Escape", PAIR), ("1", SEEN)):
            page.keyboard.press(key)
            page.wait_for_url(then)
            assert page.evaluate("window.pwned") is None
        assert page.locator("img, svg").count() == 0
        assert said == []
        page.close()


def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, tmp_path: Path
) -> None:
    run = labeled(tmp_path, prompt_injection=True)
    with serving(run, "--budget", "4") as (url, _):
        phone = browser.new_context(
            viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
        )
        page = phone.new_page()
        page.goto(url)
        page.fill("#name", "ben")
        page.tap("button.primary")
        page.wait_for_url(PAIR)
        for where in ("", "/edit"):
            page.goto(page.url.removesuffix("/edit") + where)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360
        page.goto(page.url.removesuffix("/edit"))
        for name in ("Left is better", "Tie", "Right is better", "Skip"):
            box = page.get_by_role("button", name=name).bounding_box()
            assert box is not None
            assert box["height"] >= 40
        left, right = (page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
        assert left is not None
        assert right is not None
        assert right["y"] >= left["y"] + left["height"]
        page.get_by_role("button", name="Tie").tap()
        page.wait_for_url(SEEN)
        phone.close()
    assert [verdict for verdict, _ in decisions(run)] == ["tie"]


def test_every_page_works_without_scripts(browser: Browser, tmp_path: Path) -> None:
    run = labeled(tmp_path)
    with serving(run, "--budget", "4") as (url, _):
        plain = browser.new_context(java_script_enabled=False)
        page = plain.new_page()
        log_in(page, url)
        page.get_by_role("button", name="Right is better").click()
        page.wait_for_url(SEEN)
        page.get_by_role("link", name="Next").click()
        page.wait_for_url(PAIR)
        plain.close()
    assert len(decisions(run)) == 1


def test_nothing_is_lost_when_the_server_dies(browser: Browser, tmp_path: Path) -> None:
    run = labeled(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    with serving(run, "--budget", "8", "--overlap", "0") as (url, process):
        log_in(page, url)
        for _ in range(3):
            page.keyboard.press("2")
            page.wait_for_url(SEEN)
            page.keyboard.press("Enter")
            page.wait_for_url(PAIR)
        open_pair = page.url
        port = int(url.rsplit(":", 1)[1])
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(decisions(run)) == 3
    with serving(run, "--budget", "8", "--overlap", "0", port=port) as (url, _):
        # The name, and the page that was open, still hold.
        page.goto(open_pair)
        page.keyboard.press("1")
        page.wait_for_url(SEEN)
        page.goto(f"{url}/next")
        assert page.url != open_pair
        context.close()
    assert len(decisions(run)) == 4
