"""List the post-processing steps and explain one of them."""

from common.catalogue_cli import catalogue_app
from common.names import POSTPROCESS

app = catalogue_app(
    POSTPROCESS,
    "List the post-processing steps and explain one of them.",
    ("step", "suited for", "source"),
    lambda one: (one["title"], one["suited"], one["source"].split(",")[0]),
    lambda name: None,
)
