"""A lesson as one page: what it holds, and that it runs from disk without a network."""

import json
import re
from html.parser import HTMLParser

import pytest
from chromium import MISSING
from chromium import find as find_chromium
from playwright.sync_api import sync_playwright

from pipelines.cli import lesson as command
from pipelines.errors import PipelineError, RequestError
from pipelines.lessons import forward, page


@pytest.fixture(scope="module")
def html(session_engine):
    return page.lesson_page(session_engine.registry, "forward")


class Attributes(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, *pair) for pair in attrs]


def test_a_page_holds_all_and_asks_for_nothing(html):
    assert len(html.encode()) < page.MAX_BYTES and "@" not in re.sub(r"@media", "", html)
    found = Attributes(html).found
    assert all(value.startswith("data:") for _, name, value in found if name in ("src", "href"))
    assert len([tag for tag, name, _ in found if (tag, name) == ("img", "alt")]) == 3 * 12
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])
    assert data["values"] == list(map(str, page.TIMESTEPS))
    answer = forward.QUESTION.grade()
    assert data["questions"][0]["right"] == answer.right
    assert data["questions"][0]["why"] == answer.why


def test_only_lessons_with_a_page_are_made_and_none_too_large(session_engine, monkeypatch):
    assert set(command.NAMES) == set(page.PAGES) == set(page.FRAMES)
    with pytest.raises(RequestError, match="accepted forward, reverse"):
        page.lesson_page(session_engine.registry, "nosuch")
    small = page.Contents("x", forward.QUESTION, forward.check(0), "", "t", ())
    monkeypatch.setitem(page.PAGES, "forward", lambda registry, note: small)
    monkeypatch.setattr(page, "MAX_BYTES", 100)
    with pytest.raises(PipelineError, match="accepted up to 0.0001 MB"):
        page.lesson_page(session_engine.registry, "forward")


@pytest.mark.browser
def test_a_page_runs_from_disk_without_a_network(html, tmp_path):
    path = find_chromium()
    if not path:
        pytest.fail(MISSING, False)
    file = tmp_path / "lesson.html"
    file.write_text(html, "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
        shown, asked, errors = context.new_page(), [], []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto(file.as_uri())
        slider = shown.get_by_role("slider")
        assert not slider.is_visible() and shown.locator("#pose svg").is_visible()
        shown.get_by_label("Around 500").check()
        shown.get_by_role("button", name="Commit to this guess").click()
        assert "Not so: Around 300" in shown.locator(".verdict").inner_text()
        pictures = shown.locator(".frame:not([hidden]) img")
        assert pictures.count() == 3 and shown.locator("#value").inner_text() == "300"
        before = pictures.nth(1).get_attribute("src")
        slider.press("ArrowRight")
        assert shown.locator("#value").inner_text() == "400"
        assert pictures.nth(1).get_attribute("src") != before
        assert pictures.nth(1).evaluate("image => image.naturalWidth") == 64
        shown.get_by_role("radio", name="Above 10").check()
        shown.get_by_role("button", name="Commit to this guess").click()
        assert shown.locator(".verdict").count() == 2
        assert shown.evaluate("document.documentElement.scrollWidth") == 390
        browser.close()
    assert not errors and [url for url in asked if not url.startswith(("data:", "file:"))] == []


def test_the_command_writes_a_page_and_refuses_others(run, tmp_path, monkeypatch):
    small = page.Contents("x", forward.QUESTION, forward.check(0), "", "t", ())
    monkeypatch.setitem(page.PAGES, "forward", lambda registry, note: small)
    code, _, err = run("lesson", "forward", "-o", "page.html")
    assert code == 0, err
    assert "<h1>x</h1>" in (tmp_path / "page.html").read_text("utf-8")
    code, _, err = run("lesson", "nosuch", "-o", "page.html")
    assert code == 2 and "accepted forward" in err
