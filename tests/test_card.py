"""Model cards: harmless, with the pictures of their own repository only."""

from repositories import HOSTILE_CARD

from pipelines.hub.card import card_html, picture_path, picture_paths

PAGE_OF_CARD = "http://hub.example/ada/sd"


def test_a_hostile_card_is_harmless():
    html = card_html(HOSTILE_CARD, PAGE_OF_CARD, lambda path: f"/media/{path}")
    for bad in ("<script", "onerror", "onload", "<form", "<input", "<button", "<iframe", "<style",
                "style=", "id=", "class=", "<svg", "<meta", "<base", "<video", "<object", "<embed",
                "href=\"java", "vbscript", "href=\"data", "src=\"http", "src=\"//", "pixel.gif",
                "password", "owned"):  # fmt: skip
        assert bad not in html, bad
    assert '<img src="/media/images/own.png" alt="own">' in html
    assert "[picture: tracker, not loaded]" in html
    assert f'href="{PAGE_OF_CARD}/blob/main/docs/use.md"' in html
    assert 'href="https://ok.example/page" target="_blank" rel="noopener noreferrer nofollow"' \
        in html
    assert "license: mit" not in html


def test_only_pictures_of_the_repository_itself_are_asked_for():
    assert picture_paths(HOSTILE_CARD, PAGE_OF_CARD) == ["images/own.png"]
    base = f"{PAGE_OF_CARD}/resolve/main"
    assert picture_path(f"{base}/a%20b.png", PAGE_OF_CARD) == "a b.png"
    for other in ("https://hub.example/ada/sd/resolve/main/x.png", f"{PAGE_OF_CARD}2/x.png",
                  "http://hub.example/ada/sd-evil/resolve/main/x.png", "data:image/png;base64,x",
                  "file:///etc/passwd", "../../../x.png"):  # fmt: skip
        assert picture_path(other, PAGE_OF_CARD) is None, other


def test_tables_and_code_of_a_card_are_shown():
    html = card_html("| a | b |\n|---|---|\n| 1 | `x<y` |\n")
    assert "<td>1</td>" in html and "<code>x&lt;y</code>" in html
