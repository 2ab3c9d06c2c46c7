"""The parts of the link: the way to the coordinator, and what crosses it."""
