"""A blind vote as voters meet it: nothing tells the method, and no answer is lost."""

import re

import pytest
from playwright.sync_api import expect

from browser.actions import settled
from pipelines import RunRequest
from pipelines.comparison import Comparison
from pipelines.votes.ballots import voter_of
from pipelines.votes.design import new_vote
from pipelines.votes.rows import ballot_rows

pytestmark = pytest.mark.browser

# What the page holds, the trees of its components too.
WHOLE_PAGE = """() => {
  const text = (root) => [...root.querySelectorAll("*")].reduce(
    (all, node) => node.shadowRoot ? all + node.shadowRoot.innerHTML + text(node.shadowRoot) : all,
    "");
  return document.documentElement.outerHTML + text(document);
}"""


@pytest.fixture
def vote(server_engine):
    """Two schedulers by three seeds, of which a voter sees six ballots, one with equal pictures."""
    base = RunRequest(prompt="a purple vase in the desert", num_inference_steps=1, guidance_scale=1)
    comparison = Comparison.parse(base, ["scheduler=ddim,dpmpp_2m,heun", "seed=0,1"])
    server_engine.compare(comparison, comparison_id="voted", shared=True)
    return new_vote(server_engine, "comparison", "voted", ballots=6)


def at(page, number):
    """Wait until a ballot can be answered."""
    expect(page.get_by_text(f"{number} of 6")).to_be_visible()
    settled(page)
    page.wait_for_function(
        "() => [...document.querySelectorAll('*')].some(node => node.shadowRoot && [...node"
        ".shadowRoot.querySelectorAll('.pictures img')].length && [...node.shadowRoot"
        ".querySelectorAll('.pictures img')].every(image => image.complete))")
    page.wait_for_timeout(350)  # what is pressed sooner counts as a double click


def test_nothing_that_a_voter_receives_tells_the_method(page, address, vote, server_engine):
    texts, addresses, pictures = [], [], {}
    page.on("websocket", lambda socket: socket.on(
        "framereceived", lambda data: texts.append(
            data if isinstance(data, str) else data.decode("latin-1"))))

    def keep(response):
        addresses.append(response.url)
        if response.url.startswith(f"{address}/media/"):
            pictures[response.url] = (response.body(), response.all_headers())

    page.on("response", keep)
    page.goto(f"{address}/?vote={vote.id}")
    for number, key in enumerate(["ArrowLeft", "ArrowRight", " ", "s", "1", "2"], 1):
        at(page, number)
        expect(page.get_by_test_id("stSidebar")).to_have_count(0)
        texts.append(page.evaluate(WHOLE_PAGE))
        page.keyboard.press(key)
    expect(page.get_by_text("Thank you, that was the last one")).to_be_visible()
    rows = ballot_rows(server_engine.run_log, vote.id)
    assert [row.answer for row in sorted(rows, key=lambda row: row.position)] == [
        "1", "2", "tie", "skip", "1", "2"]

    runs = server_engine.run_log.runs(comparison_id="voted")
    telling = ["ddim", "dpm", "heun", "scheduler", "voted", "comparison_id",
               *(run.image_sha256 for run in runs)]
    assert len(pictures) == 12, "a file of its own for each picture shown, equal ones too"
    for text in (*texts, *addresses, *(str(headers) for _, headers in pictures.values())):
        shown = re.sub(r"data:font[^)]*|/static/\\S*", "", text.lower())
        assert not [word for word in telling if word in shown], text[:300]
    stored = {server_engine.pictures.read(run.image_sha256) for run in runs}
    for data, _ in pictures.values():
        assert data not in stored and b"tEXt" not in data and b"iTXt" not in data


def test_voters_on_phones_reload_go_back_and_lose_nothing(chromium, address, vote, server_engine):
    voters = []
    for _ in range(3):
        context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True,
                                       has_touch=True)
        voters.append(context.new_page())
        voters[-1].goto(f"{address}/?vote={vote.id}")
    for number in range(1, 7):
        for place, page in enumerate(voters):
            at(page, number)
            page.locator(".pictures button").nth((number + place) % 2).dblclick()
    for page in voters:
        expect(page.get_by_text("Thank you, that was the last one")).to_be_visible()
    rows = ballot_rows(server_engine.run_log, vote.id)
    assert len(rows) == 18 and len({row.voter for row in rows}) == 3
    for place, page in enumerate(voters):
        browser = next(cookie["value"] for cookie in page.context.cookies()
                       if cookie["name"] == "contact_sheet_browser")
        mine = [row for row in rows if row.voter == voter_of(vote, browser)]
        assert [row.answer for row in sorted(mine, key=lambda row: row.position)] == [
            str(1 + (number + place) % 2) for number in range(1, 7)]
    first = voters[0]
    first.get_by_role("button", name="Back to the last one").click()
    at(first, 6)
    first.reload()
    at(first, 6)
    wide = first.evaluate(
        "[document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map(node => node.scrollWidth - node.clientWidth)")
    first.get_by_role("button", name="Both the same").tap()
    expect(first.get_by_text("Thank you, that was the last one")).to_be_visible()
    first.reload()
    expect(first.get_by_text("Thank you, that was the last one")).to_be_visible()
    assert len(ballot_rows(server_engine.run_log, vote.id)) == 18 and wide == [0, 0]
    for page in voters:
        page.context.close()
