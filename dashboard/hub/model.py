"""One model of the Hub or of this machine: what it is, its card and files, and how to get it."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import streamlit as st

from dashboard import state
from dashboard.components.downloads import download_details
from dashboard.components.fetch_model import (
    choice_key,
    chosen,
    fetch_model,
    forget_choices,
    model_details,
)
from dashboard.components.text import facts, notice, words
from dashboard.form.model import use_lora, use_model
from dashboard.last_net import polled
from dashboard.state import HUB
from pipelines.errors import GatedError, HubError, PipelineError
from pipelines.hub.card import LOCAL, card_html, picture_paths
from pipelines.hub.download import free_bytes
from pipelines.hub.folders import LocalFolders, local_details, missing_configs
from pipelines.hub.model import ModelDetails
from pipelines.hub.pictures import example_pictures
from pipelines.hub.plan import INDEX, size_text
from pipelines.hub.wording import host

MOST_PICTURES = 12
MAX_CONFIG = 200_000  # bytes of a config that is shown


def open_model(model_id: str | None) -> None:
    """Show a model, or the list again; from the next script run on."""
    if model_id:
        HUB.set("model", model_id)
        st.query_params["model"] = model_id
    else:
        HUB.pop("model")
        st.query_params.pop("model", None)


def detail(model_id: str) -> None:
    """One model: what it is, its card, files and config, and how to get it."""
    st.button("All models", icon=":material/arrow_back:", key=HUB.key("list"), type="tertiary",
              on_click=open_model, args=(None,))
    details = find_details(model_id)
    if details is None:
        return
    model = details.model
    name, author = (model_id, "") if model.source in ("folder", "single file") \
        else split_id(model_id)
    small = f"<small>{escape(author)} / </small>" if author else ""
    st.html(f"<h2 class='cs-model'>{small}{escape(name)}</h2>")
    words(" · ".join(stated(model.pipeline_class, model.task, model.library)), "quiet")
    if model.obstacle:
        notice("error", f"Not opened here: {model.obstacle}.")
    with st.container(key="hub-detail"):  # on a phone the panel comes first
        left, right = st.columns([7, 4], gap="large")
    with right:
        panel(details)
    with left:
        examples(details)
        card, files, config = st.tabs(["Card", f"Files ({len(details.files)})", "Config"])
        with card:
            show_card(details)
        with files:
            show_files(details)
        with config:
            show_config(details)


def find_details(model_id: str) -> ModelDetails | None:
    """From this machine, else from the Hub; says so where it is on neither."""
    hub, engine = state.hub(), state.engine()
    on_hub = len(Path(model_id).parts) <= 2 and not Path(model_id).is_absolute() \
        and model_id not in {info.model_id for info in engine.registry.bundled()}
    offline = hub.problem()
    if on_hub and not offline:
        try:
            return model_details(model_id)
        except HubError as error:
            notice("error", str(error))
            if any(chosen(model_id)):
                st.button("Back to main", key=HUB.key("main"), on_click=forget_choices,
                          args=(model_id,))
                return None
            if "/" not in model_id:
                return None
    try:
        details = local_details(engine.registry, model_id)
    except PipelineError as error:
        notice("error", f"{model_id} is not on this machine, and the Hub cannot be asked: "
               f"{offline}" if offline and on_hub else str(error))
        return None
    if offline and on_hub:
        notice("note", "Offline: this is the copy on this machine.")
    return details


def panel(details: ModelDetails) -> None:
    """At the right: size, licence, access, and what to do with it."""
    model, plan, hub = details.model, details.plan, state.hub()
    with st.container(border=True, key="hub-panel", gap="small"):
        pairs = [("Licence", model.licence or "not stated")]
        if plan:
            label = "On disk" if model.here == "yes" else "To fetch"
            pairs += [(label, f"{size_text(plan.size_bytes)}, {plan.file_count}"),
                      ("Free disk", size_text(free_bytes(hub.cache_dir)))]
        else:
            pairs.append(("Size", size_text(model.size_bytes)))
        if model.source == "Hub":
            pairs += [("Downloads, 30 days", count_text(model.downloads)),
                      ("Likes", count_text(model.likes)), ("Changed", model.updated or "–"),
                      ("Access", f"gated ({model.gated})" if model.gated else "open")]
        if model.base_models:
            pairs.append(("Base model", ", ".join(model.base_models)))
        facts(pairs)
        if model.source == "Hub":
            st.text_input("Revision", key=choice_key(model.model_id, "revision"), **state.KEEP,
                          placeholder="main; or a branch, a tag, a commit")
            st.link_button(f"Page on {host(hub)}", hub.url(model.model_id),
                           icon=":material/open_in_new:", type="tertiary")
        if plan is None and model.source == "Hub":
            words("Nothing to download.", "quiet")
            return
        if plan is None or model.here == "yes":
            use_buttons(details)
            return
        fetch_model(details)
        if details.prior:
            companion(details.prior)
        if plan.kind == "pipeline" and model.model_id in state.offered():
            words("What is on this machine already can be used as it is.", "quiet")
            use_buttons(details)


def companion(prior: str) -> None:
    words(f"A two-stage pipeline: it needs {prior} too.", "quiet")
    st.button(f"Open {prior}", key=HUB.key("prior"), on_click=open_model, args=(prior,))


def use_buttons(details: ModelDetails) -> None:
    """It is here: open it, or what stands in the way."""
    model, plan, hub = details.model, details.plan, state.hub()
    if plan and model.here == "yes":
        notice("good", "All its files are on this machine.")
    if plan and plan.kind == "segmenter":
        words("It finds things from clicks: the tool Click of In-paint uses it.", "quiet")
        if st.button("Open In-paint", type="primary", icon=":material/brush:", width="stretch",
                     key=HUB.key("inpaint")):
            st.switch_page("views/inpaint.py")
        return
    model_id, variant, revision = model.model_id, plan and plan.variant, None
    if plan and plan.revision != "main":
        revision = plan.commit
    if plan and plan.kind == "checkpoint":
        model_id = str(hub.folder(plan) / plan.main_file)
    if model.adapter:
        adapter_buttons(model_id)
        return
    if model.obstacle:
        return
    try:
        state.engine().registry.describe(model_id, revision, variant)
    except PipelineError as error:
        missing = missing_configs(Path(model_id)) if plan and plan.kind == "checkpoint" else None
        if missing:
            fetch_configs(missing)
        else:
            notice("error", str(error))
        return
    generate = st.button("Open in Generate", type="primary", icon=":material/photo_camera:",
                         key=HUB.key("generate"), width="stretch")
    compare = st.button("Add to Compare", icon=":material/grid_on:", key=HUB.key("compare"),
                        width="stretch")
    if (generate or compare) and plan and plan.kind == "checkpoint":
        LocalFolders(state.engine().home).add(model_id, state.engine().registry)
    if generate:
        use_model(state.GENERATE, model_id, variant, revision)
        st.switch_page("views/generate.py")
    if compare:
        state.compare_model(model_id, variant, revision)
        st.switch_page("views/compare.py")


def adapter_buttons(path: str) -> None:
    """Put an adapter on the model of Generate."""
    words("An adapter: it goes on top of the model that is chosen on Generate.", "quiet")
    if st.button("Use as LoRA in Generate", type="primary", icon=":material/photo_camera:",
                 key=HUB.key("lora"), width="stretch"):
        use_lora(state.GENERATE, path)
        st.switch_page("views/generate.py")


def fetch_configs(repository: str) -> None:
    """A single file holds weights only: get the configs that it goes with."""
    hub, download = state.hub(), state.downloads().latest(repository)
    words(f"A single file holds weights only; it needs the config files of {repository}.")
    if download and (download.active or download.status == "failed"):
        polled(download_details)(download)
        return
    try:
        plan = hub.details(repository, configs_only=True).plan
    except HubError as error:
        notice("error", str(error))
        return
    if plan is None:
        notice("error", f"{repository} has no config files to take. Put a folder of configs, named "
                        "like the file, beside it.")
    elif st.button(f"Fetch them: {plan.file_count}, {size_text(plan.size_bytes)}",
                   type="primary", icon=":material/download:", width="stretch",
                   key=HUB.key("configs")):
        state.downloads().start(hub, plan)
        st.rerun()


def examples(details: ModelDetails) -> None:
    paths = example_pictures(details)
    pictures = state.hub().pictures(details, paths) if paths else {}
    if pictures:
        items = "".join(
            f"<img src='{escape(state.picture_url(content, f'hub-{number}'))}' "
            f"alt='Example picture {escape(path)}' title='{escape(path)}'>"
            for number, (path, content) in enumerate(pictures.items())
        )
        st.html(f"<div class='cs-strip'>{items}</div>")


def show_card(details: ModelDetails) -> None:
    hub, model = state.hub(), details.model
    try:
        text = hub.card_text(details)
    except GatedError:
        words("The card can be read once access is given.", "quiet")
        return
    except HubError as error:
        notice("error", str(error))
        return
    if not text:
        words("This model has no card: nobody has written down what it was trained on, what it is "
              "for, or what it may be used for.", "quiet")
        return
    page = hub.url(model.model_id) if model.source in ("Hub", "Hub cache") else LOCAL
    st.html(f"<div class='cs-card'>{safe_card(details, text, page)}</div>")


def safe_card(details: ModelDetails, text: str, page: str) -> str:
    """The card as HTML, with pictures of the repository served from here."""
    pictures = state.hub().pictures(details, picture_paths(text, page)[:MOST_PICTURES])
    urls = {path: state.picture_url(content, f"hub-card-{number}")
            for number, (path, content) in enumerate(pictures.items())}
    return card_html(text, page, urls.get)


def show_files(details: ModelDetails) -> None:
    taken = {file.path for file in details.plan.files} if details.plan else set()
    rows = "".join(
        f"<tr{' class=cs-taken' if file.path in taken else ''}><td>{escape(file.path)}</td>"
        f"<td>{size_text(file.size)}</td><td>{'fetched' if file.path in taken else ''}</td></tr>"
        for file in details.files
    )
    total = size_text(sum(file.size for file in details.files))
    if details.plan:
        words(f"{size_text(details.plan.size_bytes)} of {total} are needed: safetensors of one "
              "variant, configs, tokenizers and the card; nothing twice, no pickles.", "quiet")
    st.html(f"<div class='cs-table'><table><thead><tr><th>File</th><th>Size</th><th></th></tr>"
            f"</thead><tbody>{rows}</tbody></table></div>")


def show_config(details: ModelDetails) -> None:
    if not details.index:
        words("No model_index.json that may be read: no diffusers pipeline, or a gated one.",
              "quiet")
        return
    components(details)
    configs = [file.path for file in details.files
               if file.suffix == ".json" and ".index." not in file.path and file.size < MAX_CONFIG]
    path = st.selectbox("File", [INDEX, *(path for path in configs if path != INDEX)],
                        key=HUB.key(f"config.{details.model.model_id}"))
    try:
        text = (json.dumps(details.index, indent=2) if path == INDEX else
                state.hub().content(details, path).decode("utf-8", "replace"))
    except HubError as error:
        notice("error", str(error))
        return
    st.code(text, language="json")


def components(details: ModelDetails) -> None:
    """The parts of the pipeline as a table: name, class, library, size."""
    rows = []
    for name, value in (details.index or {}).items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
            of = details.plan.files if details.plan else details.files
            size = sum(file.size for file in of if file.path.startswith(f"{name}/"))
            rows.append(f"<tr><td>{escape(name)}</td><td>{escape(value[1])}</td>"
                        f"<td>{escape(value[0])}</td><td>{size_text(size)}</td></tr>")
    st.html("<div class='cs-table'><table><thead><tr><th>Component</th><th>Class</th>"
            f"<th>Library</th><th>Size</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
            "</div>")


def section(title: str, count: str) -> None:
    st.html(f"<h3 class='cs-section'>{escape(title)} <small>{escape(count)}</small></h3>")


def split_id(model_id: str) -> tuple[str, str]:
    author, slash, name = model_id.partition("/")
    return (name, author) if slash else (model_id, "")


def plain_class(pipeline_class: str | None) -> str | None:
    return pipeline_class and pipeline_class.removesuffix("Pipeline")


def stated(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)


def count_text(value: int | None) -> str:
    if value is None:
        return "–"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)
