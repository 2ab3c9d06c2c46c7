"""What `simulations.benchmarks.deployed` sets side by side: each module starts one way of doing the same round."""
