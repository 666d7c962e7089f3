"""How long things take, and the least time that they can take."""
