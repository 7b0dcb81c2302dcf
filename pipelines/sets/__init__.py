"""Sets of pictures against sets of real ones: distance, fidelity, diversity, memorisation."""
