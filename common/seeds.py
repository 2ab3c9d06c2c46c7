"""All randomness of a study comes from its seed, by name.

A number drawn at step 7 of a site must not depend on what was drawn before it: a run that is killed and resumed, a
simulation and a deployment then draw the same numbers.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the purpose that `names` spell, e.g. `derive(study.seed, "split")`."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy's generator for the purpose that `names` spell."""
    return np.random.default_rng(derive(seed, *names))
