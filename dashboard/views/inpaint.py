"""In-paint, made in dashboard/inpaint/."""

from dashboard.inpaint.page import inpaint_page

inpaint_page()
