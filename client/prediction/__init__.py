"""A model in use: what is looked at, how, and what is written of it."""
