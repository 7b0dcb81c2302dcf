"""Hub: find, judge, fetch and remove models; what is on this machine comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.model_list import ModelLine, model_list
from dashboard.components.text import notice, words
from dashboard.hub.machine import machine
from dashboard.hub.model import (
    count_text,
    detail,
    open_model,
    plain_class,
    section,
    split_id,
    stated,
)
from dashboard.hub.tour import VIEWS, tour
from dashboard.state import HUB
from pipelines.errors import HubError, PipelineError
from pipelines.hub.folders import local_models
from pipelines.hub.model import ModelSummary
from pipelines.hub.plan import PICTURE_TASKS, size_text
from pipelines.hub.search import PAGE, SORTS, HubQuery, HubSearch, matches
from pipelines.hub.wording import host

LICENCES = ("apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "cc-by-4.0",
            "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "other")
LIBRARIES = ("diffusers", "peft", "transformers", "any")
SORT_NAMES = {"trending": "Trending", "downloads": "Most downloads", "likes": "Most likes",
              "date": "Newest change"}
SOURCES = {"bundled": "bundled", "folder": "folder", "single file": "file", "Hub cache": "cached"}


def filters() -> HubQuery:
    """What to look for, by the widgets; any change goes back to page 1."""

    def first_page() -> None:
        HUB.set("page", 1)

    def kept(name: str) -> dict[str, Any]:
        return {"on_change": first_page, **HUB.kept(name)}

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        text = st.text_input("Search", type="search", width=320,
                             placeholder="Part of a name, such as sdxl", **kept("text"))
        task = st.selectbox("Task", PICTURE_TASKS, index=None, width=220,
                            placeholder="All", **kept("task"))
        sort = st.selectbox("Sort", list(SORTS), width=170,
                            format_func=SORT_NAMES.get, **kept("sort"))
        with st.popover("More filters", icon=":material/tune:"):
            author = st.text_input("Author", placeholder="stabilityai", **kept("author"))
            base_model = st.text_input("Base model", **kept("base_model"),
                                       placeholder="stabilityai/stable-diffusion-xl-base-1.0")
            licence = st.selectbox("Licence", LICENCES, index=None, placeholder="All",
                                   accept_new_options=True, **kept("licence"))
            library = st.selectbox("Library", LIBRARIES, **kept("library"),
                                   accept_new_options=True)
            gated = st.selectbox("Access", ["open", "gated"], index=None,
                                 placeholder="All", **kept("gated"))
            size = st.number_input("Size at most, GB", 0.0, None, None, 1.0, **kept("max_gb"),
                                   placeholder="any", format="%g",
                                   help="Of the files that would be fetched; 1 GB is 10⁹ bytes.")
    return HubQuery(
        text=(text or "").strip(), task=task, author=(author or "").strip(), licence=licence,
        library=None if library == "any" else library, base_model=(base_model or "").strip(),
        gated=None if gated is None else gated == "gated", sort=sort or "trending",
        max_bytes=None if size is None else int(size * 1e9),
    )


def models() -> None:
    """The filters, what is on this machine, and what the Hub has."""
    query = filters()
    hub, engine = state.hub(), state.engine()
    here = [model for model in local_models(engine.registry, engine.home, hub.cache_dir)
            if matches(model, query)]
    HUB.start(page=1)
    page = HUB.get("page")
    opened = None
    if here and page == 1:
        section("On this machine", f"{len(here)} model{'s' * (len(here) != 1)}")
        opened = model_list([local_line(model) for model in here], key=HUB.key("here"))
    problem = hub.problem()
    section(f"On {host(hub)}", "")
    if problem:
        notice("note", "Offline: everything above works; searching and fetching need the Hub.")
        st.button("Try again", icon=":material/refresh:", key=HUB.key("again"),
                  on_click=hub.problem, args=(True,))
    else:
        opened = online(query, page, bool(here)) or opened
    if opened:
        open_model(opened)
        st.rerun()


def online(query: HubQuery, page: int, some_here: bool) -> str | None:
    """One page of the Hub's results; the id of the one that was opened."""
    hub = state.hub()
    if HUB.get("search", (None,))[0] != query:
        HUB.set("search", (query, HubSearch(hub, query)))
    search = HUB.get("search")[1]
    try:
        with st.spinner("Asking the Hub, and reading what each model needs…", show_time=True):
            results = search.page(page)
    except HubError as error:
        notice("error", str(error))
        st.button("Try again", icon=":material/refresh:", key=HUB.key("again"),
                  on_click=lambda: HUB.pop("search"))
        return None
    if not results:
        words("No model of the Hub fits. Take away a filter, or choose the library 'any'."
              if page == 1 else "No further results.", "quiet")
    opened = model_list([hub_line(model) for model in results], key=HUB.key("results")) \
        if results else None
    pager(page, bool(results) and search.has_more(page))
    return opened


def pager(page: int, more: bool) -> None:
    def turn(to: int) -> None:
        HUB.set("page", to)

    if page == 1 and not more:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.button("Previous", icon=":material/chevron_left:", disabled=page == 1,
                  key=HUB.key("back"), on_click=turn, args=(page - 1,))
        st.caption(f"Page {page}, {PAGE} a page")
        st.button("Next", icon=":material/chevron_right:", disabled=not more, key=HUB.key("next"),
                  on_click=turn, args=(page + 1,))


def local_line(model: ModelSummary) -> ModelLine:
    path = Path(model.model_id)
    name, author = (path.name, "") if path.is_absolute() else split_id(model.model_id)
    more = str(path.parent) if path.is_absolute() else model.licence
    return ModelLine(
        model.model_id, name, author, stated(plain_class(model.pipeline_class), model.task, more),
        (("size", size_text(model.size_bytes)),),
        (("good", SOURCES.get(model.source, model.source)),), model.obstacle or "",
    )


def hub_line(model: ModelSummary) -> ModelLine:
    name, author = split_id(model.model_id)
    marks = []
    if model.here != "no":
        marks.append(("good", "here" if model.here == "yes" else "partly here"))
    if model.gated:
        marks.append(("warn", "gated"))
    if not model.safetensors:
        marks.append(("bad", "no safetensors"))
    if model.adapter:
        marks.append(("plain", "adapter"))
    elif model.kind == "checkpoint":
        marks.append(("plain", "single file"))
    return ModelLine(
        model.model_id, name, author,
        stated(plain_class(model.pipeline_class), model.task, model.licence, model.updated,
               "safetensors" if model.safetensors else None,
               None if model.obstacle or model.adapter else "opens here"),
        (("to fetch", size_text(model.size_bytes)), ("downloads", count_text(model.downloads)),
         ("likes", count_text(model.likes))),
        tuple(marks), f"Not opened here: {model.obstacle}" if model.obstacle else "",
    )


def connection() -> None:
    """Which Hub, and as whom; never the token."""
    hub = state.hub()
    if problem := hub.problem():
        words(f"Offline: {problem}", "quiet")
        return
    who = "no token is set"
    if hub.has_token():
        try:
            who = f"a token is set, account {hub.account()}"
        except HubError as error:
            who = f"a token is set, but {error}"
    words(f"{host(hub)} · {who}", "quiet")


def hub_page() -> None:
    HUB.start(sort="trending", library="diffusers", view=VIEWS[0])
    st.title("Hub")
    connection()
    if asked := st.query_params.get("model"):
        HUB.set("model", asked)
    chosen = HUB.get("model")
    try:
        if chosen:
            st.query_params["model"] = chosen
            detail(chosen)
        else:
            view = st.segmented_control("View", VIEWS, key=HUB.key("view"), required=True,
                                        label_visibility="collapsed")
            {"Models": models, "This machine": machine, "Tour": tour}[view]()
    except PipelineError as error:
        notice("error", str(error))
