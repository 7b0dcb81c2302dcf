"""Class mode with ten browsers: they join, guess, change their minds, and see the answer."""

import re

import pytest
from playwright.sync_api import expect

from browser.actions import open_page

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


def test_ten_browsers_guess_and_see_the_answer(chromium, page, address):
    open_page(page, f"{address}/learn?lesson=solvers&present=1", "Solvers")
    page.get_by_role("button", name="Ask a class").click()
    link = page.locator(".cs-class b")
    expect(link).to_contain_text("?class=")
    contexts = [chromium.new_context(viewport=PHONE) for _ in range(10)]
    learners = [context.new_page() for context in contexts]
    for learner in learners:
        learner.goto(link.inner_text())
    for number, learner in enumerate(learners):
        choice = re.compile("^Yes, with both" if number < 4 else "^Only with DDIM")
        learner.get_by_role("button", name=choice).click()
        expect(learner.get_by_text("Sent.")).to_be_visible()
    expect(page.get_by_text("10 guesses from 10 browsers")).to_be_visible()
    assert page.locator(".cs-wall u").all_inner_texts() == ["4", "6", "0"]
    learners[0].get_by_role("button", name=re.compile("Only with DDIM")).click()
    learners[1].reload()  # and is still who it was
    expect(learners[1].get_by_text("Sent.")).to_be_visible()
    expect(page.locator(".cs-wall u").first).to_have_text("3")
    page.reload()
    expect(page.get_by_text("10 guesses from 10 browsers")).to_be_visible()
    page.get_by_role("button", name="Reveal the answer").click()
    expect(page.locator(".cs-wall .cs-right")).to_contain_text("Only with DDIM")
    for number in (0, 1, 9):
        verdict = "Not so: Only with DDIM" if number == 1 else "Right: Only with DDIM"
        expect(learners[number].get_by_text(verdict)).to_be_visible()
    assert learners[0].evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    expect(learners[0].get_by_test_id("stSidebar")).to_have_count(0)
    page.get_by_role("button", name="End the class").click()
    expect(learners[9].get_by_text("no class that is open now")).to_be_visible()
    for context in contexts:
        context.close()
