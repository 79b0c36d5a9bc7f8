"""dbscore beside its alternatives, one run, ratios: `python -m benchmarks`."""
