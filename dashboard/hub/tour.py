"""What is on the Hub: a tour in five steps, each on a live result."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.text import facts, notice
from dashboard.hub.model import components, show_card, show_files
from dashboard.state import HUB
from pipelines.errors import PipelineError
from pipelines.hub.folders import local_details, local_models
from pipelines.hub.model import ModelDetails, ModelSummary
from pipelines.hub.plan import PICTURE_TASKS
from pipelines.hub.search import HubQuery, HubSearch

VIEWS = ("Models", "This machine", "Tour")


def tour() -> None:
    """What is on the Hub, in five steps, each on a live result."""
    details = tour_model()
    if details is None:
        return
    steps: list[tuple[str, str, Any]] = [
        ("Models", "A model is a folder of files under a name, author / name, with a history like "
         "a program's source. Weights make up nearly all of its size; the same weights often lie "
         "there several times, in other formats. Contact Sheet fetches only what it needs.",
         show_files),
        ("Pipelines", "A diffusion model is several networks that work together: a text encoder "
         "reads the prompt, a denoiser (UNet or transformer) removes noise step by step, a VAE "
         "turns its latents into pixels. model_index.json names the parts and the pipeline class "
         "that calls them.", components),
        ("Cards", "A README says what the model was trained on, what it is for and where it "
         "fails. Its head, in YAML, is what search and filters read. A missing card is a reason "
         "to be careful.", tour_card),
        ("Licences", "The licence says what you may do with weights and pictures: 'apache-2.0' "
         "and 'mit' allow nearly all, the OpenRAIL family forbids listed uses, 'cc-by-nc' and "
         "many named 'other' forbid commerce. Gated models ask you to accept it first.",
         tour_licences),
        ("Tasks", "The task says what goes in and what comes out: text-to-image, image-to-image, "
         "unconditional. One set of weights often does several.", tour_tasks),
    ]
    HUB.start(tour=0)
    number = HUB.get("tour")

    def go(to: int) -> None:
        HUB.set("tour", to)

    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.segmented_control("Step", range(len(steps)), key=HUB.key("tour"), required=True,
                             format_func=lambda n: f"{n + 1} {steps[n][0]}",
                             label_visibility="collapsed")
        if number == len(steps) - 1:
            st.button("To the models", type="primary", key=HUB.key("tour.end"), on_click=show_list)
        else:
            st.button("Next", type="primary", key=HUB.key("tour.next"), on_click=go,
                      args=(number + 1,))
    title, text, show = steps[number]
    st.html(f"<h2 class='cs-model'>{title}</h2><p class='cs-prose'>{escape(text)}</p>"
            f"<p class='cs-quiet'>Live: {escape(details.model.model_id)}</p>")
    show(details)


def show_list() -> None:
    HUB.set("view", VIEWS[0])


def tour_results() -> list[ModelSummary]:
    """What the tour counts: the Hub's first page of results, offline what is here."""
    hub, engine = state.hub(), state.engine()
    if hub.problem():
        return local_models(engine.registry, engine.home, hub.cache_dir)
    if HUB.get("counted") is None:
        with st.spinner("Asking the Hub…", show_time=True):
            HUB.set("counted", HubSearch(hub, HubQuery()).page(1))
    return HUB.get("counted")


def tour_model() -> ModelDetails | None:
    """A live example: the first open pipeline among the results; offline the bundled model."""
    hub, engine = state.hub(), state.engine()
    try:
        results = tour_results()
        if not hub.problem():
            first = next((m for m in results if not m.gated and not m.obstacle
                          and m.kind == "pipeline"), None)
            if first:
                return hub.details(first.model_id)
        return local_details(engine.registry, "postcards")
    except PipelineError as error:
        notice("error", str(error))
        return None


def tour_card(details: ModelDetails) -> None:
    if details.card:
        head = {k: v for k, v in details.card.items() if k != "widget"}
        st.code(json.dumps(head, indent=2, default=str)[:1500], language="json")
    with st.container(height=420, key="hub-tour-card"):
        show_card(details)


def tour_licences(details: ModelDetails) -> None:
    facts([("This model", details.model.licence or "not stated"),
           ("Access", f"gated ({details.model.gated})" if details.model.gated else "open")])
    counted([model.licence or "not stated" for model in tour_results()], "Licence")


def tour_tasks(details: ModelDetails) -> None:
    facts([("This model", details.model.task or "not stated")])
    counted([model.task or "not stated" for model in tour_results()], "Task")
    with st.container(horizontal=True, gap="small"):
        for task in PICTURE_TASKS:
            st.button(f"Search {task}", key=HUB.key(f"tour.{task}"), on_click=search_task,
                      args=(task,))


def search_task(task: str) -> None:
    HUB.set("task", task)
    HUB.set("page", 1)
    show_list()


def counted(values: list[str], name: str) -> None:
    """How often each value occurs among the results, as a small table."""
    counts = sorted({value: values.count(value) for value in values}.items(), key=lambda x: -x[1])
    rows = "".join(f"<tr><td>{escape(value)}</td><td>{count}</td></tr>" for value, count in counts)
    st.html(f"<div class='cs-table cs-small'><table><thead><tr><th>{name}</th>"
            f"<th>of {len(values)} models</th></tr></thead><tbody>{rows}</tbody></table></div>")
