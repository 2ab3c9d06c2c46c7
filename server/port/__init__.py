"""The coordinator's side of the network: Flower's Fleet API behind a gate that denies by default."""
