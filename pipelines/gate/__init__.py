"""Is a speed-up free? A candidate against a baseline, within margins."""
