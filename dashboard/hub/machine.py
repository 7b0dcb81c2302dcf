"""Models on this machine: the Hub's cache by revision, what broke off, registered folders."""

from __future__ import annotations

import time
from html import escape

import streamlit as st

from dashboard import state
from dashboard.components.text import facts, notice, words
from dashboard.hub.model import open_model, section, split_id
from dashboard.last_net import last_net
from dashboard.state import HUB
from pipelines.errors import PipelineError, StorageError
from pipelines.hub.cache import (
    CachedRevision,
    cached_revisions,
    damaged_entries,
    damaged_files,
    delete_leftovers,
    delete_revisions,
    forget_files,
    freed_bytes,
    leftovers,
)
from pipelines.hub.download import free_bytes
from pipelines.hub.folders import LocalFolders
from pipelines.hub.plan import size_text
from pipelines.models.files import existing_path

DAY = 86_400  # seconds


def machine() -> None:
    """The cache by revision, what broke off, and registered folders."""
    cache = state.hub().cache_dir
    try:
        revisions, damaged = cached_revisions(cache), damaged_entries(cache)
    except StorageError as error:
        notice("error", str(error))
        folders()
        return
    taken = freed_bytes(cache, [revision.commit for revision in revisions])
    section("Downloaded models", str(cache))
    facts([("Models", str(len({r.model_id for r in revisions}))),
           ("Revisions", str(len(revisions))), ("Size", size_text(taken)),
           ("Free disk", size_text(free_bytes(cache)))])
    if not revisions:
        words("Nothing is downloaded yet. Open a model of the list and press Download.", "quiet")
    for revision in revisions:
        revision_row(revision)
    for problem in damaged:
        notice("error", f"Not listed: {problem}")
    if HUB.get("deleting"):
        confirm_delete(HUB.get("deleting"))
    parts = leftovers(cache)
    active = {download.plan.model_id for download in state.downloads().active()}
    if parts := {model: size for model, size in parts.items() if model not in active}:
        section("Unfinished downloads", "they resume where they broke off")
        for model_id, size in parts.items():
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                words(f"{model_id} · {size_text(size)}")
                st.button("Open", key=HUB.key(f"unfinished.{model_id}"), on_click=open_model,
                          args=(model_id,))
                st.button("Delete", icon=":material/delete:", key=HUB.key(f"forget.{model_id}"),
                          on_click=last_net()(delete_leftovers), args=(cache, model_id))
    folders()


def revision_row(revision: CachedRevision) -> None:
    """One revision: name and facts at the left, what can be done at the right."""
    key = revision.commit[:12]

    @last_net()
    def check() -> None:
        HUB.set(f"damaged.{key}", damaged_files(revision))

    def ask() -> None:
        HUB.set("deleting", revision.commit)

    name, author = split_id(revision.model_id)
    refs = ", ".join(revision.refs) or "no branch"
    with st.container(border=True, key=f"hub-revision-{key}", horizontal=True, gap="small",
                      vertical_alignment="center"):
        st.html(f"<div class='cs-revision'><b><small>{escape(author)} / </small>{escape(name)}</b>"
                f"<span>{escape(refs)} · {key} · {size_text(revision.size_bytes)} · "
                f"{revision.files} files · last used {_ago(revision.last_used)}</span></div>")
        st.button("Open", key=HUB.key(f"open.{key}"), on_click=open_model,
                  args=(revision.model_id,))
        st.button("Check", icon=":material/fact_check:", key=HUB.key(f"check.{key}"),
                  on_click=check, help="Read every file and compare its checksum.")
        st.button("Delete", icon=":material/delete:", key=HUB.key(f"delete.{key}"), on_click=ask)
    damaged = HUB.get(f"damaged.{key}")
    if damaged == []:
        notice("good", f"All {revision.files} files of {revision.model_id} are whole.")
    elif damaged:
        notice("error", f"Damaged: {', '.join(damaged)}. Remove them and open the model to fetch "
                        "them again.")
        st.button("Remove the damaged files", key=HUB.key(f"mend.{key}"), on_click=mend,
                  args=(revision, damaged))


@last_net()
def mend(revision: CachedRevision, damaged: list[str]) -> None:
    forget_files(revision, damaged)
    HUB.pop(f"damaged.{revision.commit[:12]}")
    open_model(revision.model_id)


@st.dialog("Delete from this machine?", on_dismiss=lambda: HUB.pop("deleting"))
@last_net()
def confirm_delete(commit: str) -> None:
    cache = state.hub().cache_dir
    revision = next((r for r in cached_revisions(cache) if r.commit == commit), None)
    if revision is None:
        HUB.pop("deleting")
        st.rerun()
    words(f"{revision.model_id}, revision {commit[:12]}", "large")
    freed = freed_bytes(cache, [commit])
    words(f"{size_text(freed)} are freed. Runs in the log stay; the model can be downloaded again.")
    with st.container(horizontal=True, gap="small"):
        if st.button(f"Delete and free {size_text(freed)}", type="primary",
                     key=HUB.key("delete.yes")):
            try:
                delete_revisions(cache, [commit])
            except PipelineError as error:
                notice("error", str(error))
                return
            HUB.pop("deleting")
            st.toast(f"{size_text(freed)} are free again")
            st.rerun()
        if st.button("Keep it", key=HUB.key("delete.no")):
            HUB.pop("deleting")
            st.rerun()


def folders() -> None:
    """Register and forget pipeline folders."""
    registered = LocalFolders(state.engine().home)
    section("Registered folders", "offered wherever a model is chosen")
    for path in registered.paths():
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            words(path + ("" if existing_path(path) else " (not there now)"))
            st.button("Open", key=HUB.key(f"folder.{path}"), on_click=open_model, args=(path,))
            st.button("Forget", key=HUB.key(f"unregister.{path}"), help="The files stay.",
                      on_click=last_net()(registered.remove), args=(path,))
    with (st.form(HUB.key("register"), clear_on_submit=True, border=False),
          st.container(horizontal=True, gap="small", vertical_alignment="bottom")):
        path = st.text_input("Folder in diffusers' format, or a .safetensors checkpoint",
                             key=HUB.key("path"), placeholder="/data/models/my-model", width=480)
        go = st.form_submit_button("Register", icon=":material/create_new_folder:")
    if go:
        try:
            new = registered.add(path, state.engine().registry)
        except PipelineError as error:
            notice("error", str(error))
        else:
            text = f"Registered: {', '.join(new)}" if new else "It was registered already."
            st.toast(text)
            st.rerun()


def _ago(seconds: float) -> str:
    days = int((time.time() - seconds) // DAY)
    return ("today" if days <= 0 else "yesterday" if days == 1 else f"{days} days ago"
            if days < 60 else f"{days // 30} months ago")
