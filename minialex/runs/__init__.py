"""What is on disk of a run, and trained weights by themselves."""
