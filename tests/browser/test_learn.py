"""Learn as a class sees it: every lesson with a wrong and a right guess, and the presentation."""

import re

import pytest
from playwright.sync_api import expect

from browser.actions import open_page, settled
from pipelines.jobs import open_queue

pytestmark = pytest.mark.browser

# Lesson -> a wrong and the right choice, and what the chart shows.
LESSONS = {
    "forward": ("Around 500", "Around 300", "density of x_t, exact"),
    "reverse": ("Neither layout nor detail", "Both are settled", "predicted x0"),
    "solvers": ("Yes, with both", "Only with DDIM", "exact end of each point"),
    "guidance": ("Points of the sharper", "Points still narrower", "guided points"),
    "flow": ("One: its paths", "More than five", "paths of 24 points"),
    "words": ("In all four", "In some of them", "begin 0."),
    "latents": ("As near as a stored", "As far as a freshly", "slerp, 0.5"),
    "distillation": ("That of 4", "That of 1", "exact end of each point"),
    "train your own": ("Near 0", "Well between 0 and 1", "t = 999"),
}
KEYS = {"train your own": "training"}  # where the address has another name than the title


def guess(page, choice):
    option = page.get_by_text(re.compile(f"^{choice}")).first
    expect(option).to_be_visible()
    option.click()
    page.get_by_role("button", name="Commit to this guess").first.click()


def test_every_lesson_with_a_wrong_and_a_right_guess(page, address):
    open_page(page, f"{address}/learn", "Learn")
    for lesson, (wrong, right, shown) in LESSONS.items():
        page.get_by_role("radio", name=re.compile(f"^[0-9] {lesson}", re.I)).click()
        expect(page).to_have_url(re.compile(f"lesson={KEYS.get(lesson, lesson)}"))
        commit = page.get_by_role("button", name="Commit to this guess")
        expect(commit).to_have_count(1)
        expect(page.get_by_text(shown)).to_have_count(0)
        guess(page, wrong)
        verdict = page.locator(".cs-notice").first
        expect(verdict).to_contain_text(f"Not so: {right}")
        expect(page.get_by_text(shown).first).to_be_visible()
        page.get_by_role("button", name="Guess again").first.click()
        expect(page.get_by_text(shown)).to_have_count(0)
        guess(page, right)
        expect(verdict).to_contain_text("Right.")
        expect(page.locator(".cs-gallery img").first).to_be_visible()
        settled(page)
        assert page.locator(".cs-gallery img:not([alt])").count() == 0
        for chart in page.locator("[role=graphics-document]").all():
            assert len(chart.get_attribute("aria-label")) > 40  # its caption
        assert page.get_by_text("not foreseen").count() == 0


def test_a_new_case_is_answered_by_keyboard_and_opens_in_compare(page, address):
    page.goto(f"{address}/learn?lesson=flow")
    guess(page, "One: its paths")
    expect(page.get_by_role("button", name="Guess again")).to_have_count(1)
    settled(page)
    commit = page.get_by_role("button", name="Commit to this guess")
    page.get_by_test_id("stRadio").nth(1).get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    expect(commit).to_be_enabled()
    commit.press("Enter")
    expect(page.get_by_role("button", name="Guess again")).to_have_count(2)
    settled(page)
    page.get_by_role("button", name="Another case").click()
    expect(page.get_by_role("button", name="Guess again")).to_have_count(1)
    settled(page)
    page.get_by_role("button", name="Open in Compare").click()
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    expect(page.get_by_text("12 cells")).to_be_visible()


def test_a_network_is_trained_paused_and_gone_on_with(page, address, server_engine):
    page.goto(f"{address}/learn?lesson=training")
    guess(page, "Near 0")
    page.get_by_role("button", name="Train it now").click()
    expect(page.get_by_text("makes of noise with the network")).to_be_visible()
    main = page.get_by_test_id("stMain")
    main.get_by_role("button", name="Pause").click()
    expect(main.get_by_text("Paused")).to_be_visible()
    main.get_by_role("button", name="Go on").click()
    expect(main.get_by_role("button", name="Pause")).to_be_visible()
    (job,) = (job for job in open_queue(server_engine, work=False).jobs() if job.kind == "train")
    job.cancel()
    assert job.wait(60)
    expect(page.get_by_role("button", name="Start anew")).to_be_visible()


def test_a_presentation_hides_the_sidebar_and_turns_by_keys(page, address):
    page.goto(f"{address}/learn?lesson=reverse&present=1")
    expect(page.get_by_role("heading", name="Reverse", exact=True)).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_be_hidden()
    for key, title in (("ArrowRight", "Solvers"), ("PageDown", "Guidance"),
                       ("ArrowLeft", "Solvers"), ("PageUp", "Reverse")):
        settled(page)
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
