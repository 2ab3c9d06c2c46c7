"""The running coordinator: its process, its queue of runs, and the operator's commands to it."""
