"""The web pages in a real browser: nothing runs, nothing is fetched, nothing sticks out, and everybody can read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no py.typed
from hostile_strings import HOSTILE_STRINGS
from pagedata import hostile_preview, hostile_report, preview, report
from playwright.sync_api import Browser, Dialog, Page

from runner.pages import preview_page, report_page

pytestmark = pytest.mark.needs_root_install

PHONE, DESK = 390, 1280
Scheme = Literal["light", "dark"]
PAGES = {"preview": preview_page(preview()), "report": report_page(report())}


class Heard:
    """What a page did beside being shown."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.console: list[str] = []
        self.dialogs: list[str] = []

    def dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def shown(
    browser: Browser, path: Path, data: bytes, *, width: int, scheme: Scheme = "light"
) -> Iterator[tuple[Page, Heard]]:
    """The page in a window of its own, opened from a file as a person would."""
    path.write_bytes(data)
    heard = Heard()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(60_000)  # the machine may be busy
    page = context.new_page()
    page.on("request", lambda request: heard.requests.append(request.url))
    page.on("console", lambda message: heard.console.append(message.text))
    page.on("pageerror", lambda error: heard.console.append(str(error)))
    page.on("dialog", heard.dialog)
    try:
        page.goto(path.as_uri(), wait_until="load")
        yield page, heard
    finally:
        context.close()


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_shown_with_nothing_fetched_or_said(browser: Browser, tmp_path: Path, name: str, width: int) -> None:
    path = tmp_path / f"{name}.html"
    with shown(browser, path, PAGES[name], width=width) as (page, heard):
        assert page.locator("h1").inner_text() == "spring-sale"
        assert page.locator(".bubble").first.is_visible()
        assert overflow(page) == 0
        assert {url for url in heard.requests if not url.startswith("data:")} == {path.as_uri()}
        assert (heard.console, heard.dialogs) == ([], [])


@pytest.mark.parametrize("start", range(0, len(HOSTILE_STRINGS), 60))
def test_hostile_text_is_inert_and_stays_in_its_place(browser: Browser, tmp_path: Path, start: int) -> None:
    texts = (HOSTILE_STRINGS[start:] + HOSTILE_STRINGS)[:60]
    for name, data in (
        ("preview", preview_page(hostile_preview(texts))),
        ("report", report_page(hostile_report(texts))),
    ):
        path = tmp_path / f"{name}.html"
        with shown(browser, path, data, width=PHONE) as (page, heard):
            assert overflow(page) == 0
            assert {url for url in heard.requests if not url.startswith("data:")} == {path.as_uri()}
            assert (heard.console, heard.dialogs) == ([], [])
            assert "HIT" not in page.title() or "document.title" in page.title()
            assert page.url == path.as_uri()
            assert page.locator("script, iframe, img, form, object, embed, base").count() == 0


def test_a_script_would_be_refused_even_if_it_got_in(browser: Browser, tmp_path: Path) -> None:
    data = PAGES["preview"].replace(
        b"</main>", b"<script>document.title='HIT'</script><img src=https://evil.example/x></main>"
    )
    with shown(browser, tmp_path / "preview.html", data, width=DESK) as (page, heard):
        assert page.title() == "Preview of spring-sale"
        assert "Content Security Policy" in " ".join(heard.console)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_a_page(browser: Browser, tmp_path: Path, name: str, width: int, scheme: Scheme) -> None:
    with shown(browser, tmp_path / f"{name}.html", PAGES[name], width=width, scheme=scheme) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert overflow(page) == 0
        violations = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"], each["help"]) for each in violations] == []


def test_a_page_in_the_dark_is_dark_and_on_paper_is_light(browser: Browser, tmp_path: Path) -> None:
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--sheet').trim()"
    with shown(browser, tmp_path / "report.html", PAGES["report"], width=DESK, scheme="dark") as (page, _):
        assert page.evaluate(ground) == "#181e24"
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "#ffffff"
        assert page.locator("nav").is_hidden()


def test_the_keyboard_reaches_the_content_first_and_its_place_is_seen(browser: Browser, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "report.html", PAGES["report"], width=DESK) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_right_to_left_text_runs_from_right_to_left(browser: Browser, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "preview.html", PAGES["preview"], width=DESK) as (page, _):
        line = page.locator(".caption div", has_text="مرحبا").first
        assert line.evaluate("each => getComputedStyle(each).direction") == "rtl"
