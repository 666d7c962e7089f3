"""How long things take, and the least time that they could take."""
