"""What a run stores on disk, and files of trained weights."""
