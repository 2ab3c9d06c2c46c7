"""What link and trainer share: a folder for tasks and replies, and a Unix socket."""
