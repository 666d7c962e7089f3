"""How long things take, and how long they must take at least."""
