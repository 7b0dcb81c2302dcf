"""`python -m pipelines.bench`: the engine against plain diffusers, as ratios from one run."""
