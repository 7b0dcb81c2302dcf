"""Votes, made in dashboard/votes/."""

from dashboard.votes.page import votes_page

votes_page()
