"""Study, made in dashboard/study/."""

from dashboard.study.page import study_page

study_page()
