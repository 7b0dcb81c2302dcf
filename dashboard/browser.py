"""Which browser asks: an id of its own, in a cookie, so that a person finds their jobs again after
a reload. It is no account and protects nothing: it says whose a job is."""

from __future__ import annotations

import re
import secrets

import streamlit as st

from pipelines.queue import Job

COOKIE = "contact_sheet_browser"
BROWSER = "browser"  # the session's key, while the cookie is on its way
DAYS = 365
# What a browser says of itself; the first that fits.
BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrom", "Chrome"),
            ("Safari/", "Safari"))
SYSTEMS = (("iPhone", "an iPhone"), ("iPad", "an iPad"), ("Android", "Android"),
           ("Windows", "Windows"), ("Mac OS", "a Mac"), ("Linux", "Linux"))


def browser() -> str:
    """The id of this session's browser."""
    if BROWSER not in st.session_state:
        cookie = str(st.context.cookies.get(COOKIE))
        st.session_state[BROWSER] = (cookie if re.fullmatch("[0-9a-f]{16}", cookie)
                                     else secrets.token_hex(8))
    return st.session_state[BROWSER]


def remember_browser() -> None:
    """Give the browser its cookie, where it has none."""
    if st.context.cookies.get(COOKIE) != browser():
        st.html(f"<script>document.cookie = '{COOKIE}={browser()}; path=/; SameSite=Strict; "
                f"max-age={DAYS * 86400}'</script>", unsafe_allow_javascript=True)


def asked() -> dict[str, str]:
    """Who asks for a job now, as JobQueue.submit takes it."""
    agent = str(st.context.headers.get("User-Agent"))
    name = next((name for sign, name in BROWSERS if sign in agent), "A browser")
    system = next((name for sign, name in SYSTEMS if sign in agent), "")
    return {"browser": browser(), "asked_with": f"{name} on {system}" if system else name}


def is_mine(job: Job) -> bool:
    return job.row.browser == browser()


def whose(job: Job) -> str:
    """'Firefox on Linux (3f2a)'."""
    row = job.row
    return f"{row.asked_with or 'Another program'} ({row.browser[:4]})" if row.browser else (
        row.asked_with or "Another program")
