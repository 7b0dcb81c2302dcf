"""Everything that is known of one run."""

from __future__ import annotations

import statistics
from html import escape

import streamlit as st

from dashboard.components.text import duration, facts, milliseconds, notice
from pipelines.log_tables import Run
from pipelines.notation import for_browser, number_text
from pipelines.schedulers import known_scheduler

STAGES = (("text_encoding", "Text encoding"), ("denoising", "Denoising"), ("decoding", "Decoding"))


def scheduler_label(key: str) -> str:
    info = known_scheduler(key)
    return info.label if info else key


def alt_text(run: Run) -> str:
    """A picture in words, for those who do not see it."""
    return (f"{run.prompt or 'no prompt'}, {scheduler_label(run.scheduler)}, guidance_scale "
            f"{guidance_text(run)}, {steps_text(run)}, seed {run.seed}")


def steps_text(run: Run) -> str:
    steps = run.asked("num_inference_steps")
    return "the provider's steps" if steps is None else f"{steps} steps"


def guidance_text(run: Run) -> str:
    scale = run.asked("guidance_scale")
    return "the provider's" if scale is None else number_text(scale)


def kept_notice(run: Run) -> None:
    """What an in-painting left alone, as counted on the stored pictures."""
    if run.unmasked_pixels:
        kind = "error" if run.changed_unmasked_pixels else "good"
        notice(kind, f"{run.changed_unmasked_pixels:,} of {run.unmasked_pixels:,} unmasked pixels "
                     "changed.")
    elif run.unmasked_pixels == 0:
        notice("note", "The mask covered the whole picture: no pixel was to be kept.")


def run_measurements(run: Run) -> None:
    """Where the time went, and what it cost."""
    if run.status != "ok":
        kind = "error" if run.status == "failed" else "note"
        notice(kind, run.error or f"This run was {run.status}.")
        return
    for note in run.notes:
        notice("note", note)
    if run.shared:
        notice("note", "This cell shared its UNet calls with others: its times are a share of "
                       "theirs, no measurement of its own.")
    if run.hosted:
        _provider(run)
        return
    _stages(run)
    per_step = statistics.median(run.step_ms) if run.step_ms else None
    facts([
        ("Total", duration(run.total_ms / 1000)),
        ("Text encoding", milliseconds(run.text_encoding_ms)),
        ("Denoising", milliseconds(run.denoising_ms)),
        ("Per step, median", milliseconds(per_step)),
        ("Decoding", milliseconds(run.decoding_ms)),
        ("Function evaluations", str(run.nfe)),
        ("Peak memory", f"{(run.peak_memory_bytes or 0) / 2**20:.0f} MiB"),
        ("Device", f"{run.device} · {run.dtype}"),
        ("Loading, paid apart", milliseconds(run.load_ms) if run.load_ms else "none"),
        ("Warm-up, paid apart", milliseconds(run.warm_up_ms) if run.warm_up_ms else "none"),
        ("Initial noise, SHA-256", run.noise_sha256 or "–"),
        ("Size", f"{run.width} × {run.height} px"),
    ])


def _provider(run: Run) -> None:
    """What is known of a picture that a provider made."""
    provider = run.environment.get("provider")
    provider = provider if isinstance(provider, dict) else {}
    told = provider.get("headers")
    facts([
        ("There and back", duration(run.total_ms / 1000)),
        ("Provider", str(provider.get("provider", "–"))),
        ("Initial noise", "unknown"),
        ("Size", f"{run.width} × {run.height} px"),
        *((name, str(value)) for name, value in (told if isinstance(told, dict) else {}).items()),
    ])


def _stages(run: Run) -> None:
    """The stages as one bar, and each step as a bar below it."""
    total = run.total_ms or 1
    values = [(label, getattr(run, f"{name}_ms") or 0.0) for name, label in STAGES]
    values.append(("Other", max(0.0, total - sum(value for _, value in values))))
    parts = "".join(
        f"<i class='cs-stage{number}' style='flex-grow:{value / total:.4f}' "
        f"title='{label} {milliseconds(value)}'></i>"
        for number, (label, value) in enumerate(values)
    )
    legend = "".join(f"<span><i class='cs-stage{number}'></i>{label} {value / total:.0%}</span>"
                     for number, (label, value) in enumerate(values))
    steps = ""
    if 1 < len(run.step_ms) <= 200:
        tallest = max(run.step_ms) or 1
        bars = "".join(f"<i style='height:{max(4, 100 * ms / tallest):.0f}%' "
                       f"title='step {number}: {milliseconds(ms)}'></i>"
                       for number, ms in enumerate(run.step_ms, 1))
        steps = (f"<div class='cs-steps' role='img' aria-label='{len(run.step_ms)} steps, the "
                 f"slowest {escape(milliseconds(tallest))}'>{bars}</div>")
    name = f"Stages of {duration(total / 1000)}"
    st.html(f"<div class='cs-bar' role='img' aria-label='{escape(name)}'>{parts}</div>"
            f"<div class='cs-legend'>{legend}</div>{steps}")


def run_record(run: Run) -> None:
    """The whole request, the environment and the places in the log, as data."""
    st.markdown("**Request**")
    st.json(for_browser(run.request), expanded=True)
    if run.environment:
        st.markdown("**Environment**")
        st.json(for_browser(run.environment), expanded=True)
    st.markdown("**Record**")
    st.json({"id": run.id, "datetime_utc": run.datetime_utc, "status": run.status,
             "error": run.error, "comparison_id": run.comparison_id, "axes": for_browser(run.axes),
             "noise_sha256": run.noise_sha256, "image_sha256": run.image_sha256,
             "denoiser_rows": run.denoiser_rows, "step_ms": run.step_ms}, expanded=1)
