"""Performance figures: run each file as `python -m simulations.benchmarks.NAME`. Ratios are taken within one run."""
