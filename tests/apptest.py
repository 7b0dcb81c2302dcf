"""The pages through Streamlit's AppTest: draw one, wait for its jobs, read what it shows."""

import json
from pathlib import Path

from streamlit.testing.v1 import AppTest

from dashboard import state

WAIT = 60
APP = Path(__file__).parents[1] / "dashboard" / "app.py"
NASTY = "**bold** [link](https://evil.example) <img src=x onerror=alert(1)> :red[no] $x$"


def page(name: str, values: dict | None = None, **query: str) -> AppTest:
    """The whole app, router and sidebar included, on one of its pages; `values` by session key."""
    app = AppTest.from_file(APP, default_timeout=WAIT)
    for key, value in query.items():
        app.query_params[key] = value
    for key, value in (values or {}).items():
        app.session_state[key] = value
    app.run()
    return app.switch_page(f"views/{name}.py").run() if name != "generate" else app


def finish(app: AppTest) -> AppTest:
    """Wait for the queue, then draw the page as the browser's poll would."""
    for job in state.job_queue().jobs():
        assert job.wait(WAIT)
    return app.run()


def html(app: AppTest) -> str:
    return "\n".join(element.proto.body for element in app.get("html"))


def component_data(app: AppTest, name: str) -> dict:
    """What a component of ours was given."""
    components = [element.proto for element in app.get("bidi_component")
                  if element.proto.component_name == name]
    return json.loads(components[-1].json)
