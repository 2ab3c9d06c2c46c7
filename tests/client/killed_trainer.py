"""Trainers as real processes that are killed at chosen moments. Not a test: the tests start it.

What it reads and prints is said in tests/simulations/crash.py. Open rounds are written down after each step.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
CRASH = Path(__file__).parents[1] / "simulations" / "crash.py"

if __name__ == "__main__":
    import client.trainer
    import client.work.midround

    client.work.midround.EVERY, client.work.midround.SHARE = 0.0, 1e9
    runpy.run_path(str(CRASH), run_name="__main__")
