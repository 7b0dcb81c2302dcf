"""Hub, made in dashboard/hub/."""

from dashboard.hub.page import hub_page

hub_page()
