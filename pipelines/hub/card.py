"""Model cards as HTML in which nothing runs, nothing is sent, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from urllib.parse import unquote, urljoin, urlsplit

TAGS = {
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em",
    "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s",
    "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot",
    "th", "thead", "tr", "u", "ul",
}
CELL = {"colspan", "rowspan", "align"}
ATTRIBUTES = {"a": {"href"}, "img": {"src", "alt"}, "td": CELL, "th": CELL, "ol": {"start"},
              "details": {"open"}}
DROPPED_WITH_CONTENT = {"script", "style", "iframe", "object", "embed", "template", "noscript",
                        "svg", "math", "form", "textarea", "select", "button", "audio", "video",
                        "title"}
LOCAL = "https://local.invalid/card"  # the page of a model that has none
HEAD = re.compile(r"\A\s*---\r?\n.*?\r?\n---\s*(\r?\n|\Z)", re.DOTALL)
NO_PICTURE = re.compile(r'<img(?![^>]* src=)(?: alt="([^"]*)")?[^>]*>')


def card_html(
    text: str, model_url: str = LOCAL, picture: Callable[[str], str | None] = lambda path: None
) -> str:
    """A card's Markdown as safe HTML.

    `model_url` is the model's page, against which relative links are read. `picture` gives the
    address under which a picture of the repository is served here; all others are not loaded, for
    a picture from elsewhere tells its host who reads the card and when.
    """
    import nh3
    from markdown_it import MarkdownIt

    def attribute(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("a", "href"):
            return _link(value, model_url)
        if (tag, name) == ("img", "src"):
            path = picture_path(value, model_url)
            return picture(path) if path else None
        return value

    body = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    cleaned = nh3.clean(
        body.render(HEAD.sub("", text, count=1)),
        tags=TAGS,
        clean_content_tags=DROPPED_WITH_CONTENT,
        attributes=ATTRIBUTES,
        attribute_filter=attribute,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return NO_PICTURE.sub(_no_picture, cleaned)


def picture_paths(text: str, model_url: str = LOCAL) -> list[str]:
    """Paths of the repository's own pictures that a card shows, in order."""
    paths: list[str] = []

    def collect(path: str) -> None:
        paths.append(path)

    card_html(text, model_url, collect)
    return list(dict.fromkeys(paths))


def picture_path(address: str, model_url: str) -> str | None:
    """The path in the model's repository that a picture's address means; None for any other."""
    model = urlsplit(model_url)
    parts = urlsplit(urljoin(f"{model_url}/resolve/main/", address.strip()))
    if (parts.scheme, parts.netloc) != (model.scheme, model.netloc):
        return None
    match = re.fullmatch(r"/(?:resolve|raw|blob)/[^/]+/(.+)",
                         parts.path.removeprefix(model.path.rstrip("/")))
    if not parts.path.startswith(f"{model.path.rstrip('/')}/") or not match:
        return None
    path = unquote(match[1])
    return None if ".." in path.split("/") else path


def _link(address: str, model_url: str) -> str | None:
    """An absolute address; None for a jump inside the card, whose target has no name here."""
    if address.startswith("#"):
        return None
    if urlsplit(address).scheme in ("http", "https", "mailto"):
        return address
    return None if model_url == LOCAL else urljoin(f"{model_url}/blob/main/", address)


def _no_picture(match: re.Match) -> str:
    words = match[1] or ""
    return f"<span>[picture{': ' + escape(words, quote=False) if words else ''}, not loaded]</span>"
