"""List the losses and explain one of them."""

from common.catalogue_cli import catalogue_app
from common.names import LOSSES

app = catalogue_app(
    LOSSES,
    "List the losses and explain one of them.",
    ("loss", "suited for", "source"),
    lambda one: (one["title"], one["suited"], one["source"].split(",")[0]),
    lambda name: None,
)
