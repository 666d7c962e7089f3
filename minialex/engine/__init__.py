"""A network at work: its columns on their devices, a step, a session."""
