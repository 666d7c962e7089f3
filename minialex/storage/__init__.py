"""Files that no kill and no fault can tear."""
