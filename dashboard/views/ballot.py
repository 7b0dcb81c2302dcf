"""What a voter's link opens, made in dashboard/votes/."""

from dashboard.votes.ballot import ballot_page

ballot_page()
