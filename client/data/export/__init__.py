"""De-identified copies of a site's cases: `run.export`."""
