"""Models whose exact answer is known, and schedulers held against it."""
