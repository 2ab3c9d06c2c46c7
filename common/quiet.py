"""Silences what the libraries would send or fetch on their own. Import it before flwr, ray or anything of Hugging Face.

These libraries read their switches when they are imported, and a child process inherits them. The values are set, not
offered as defaults: a hospital's machine talks to its coordinator and to nobody else.
"""

import os

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}

os.environ.update(SWITCHES)
