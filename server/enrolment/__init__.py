"""Who may take part, and with which keys: the coordinator's identity and the enrolled sites."""
