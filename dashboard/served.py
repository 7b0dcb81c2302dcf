"""The dashboard behind a password, for other machines to reach: `contact-sheet --host`."""

from starlette.middleware import Middleware
from streamlit.starlette import App

from dashboard.door import Door, secret

app = App("app.py", middleware=[Middleware(Door, secret=secret())])
