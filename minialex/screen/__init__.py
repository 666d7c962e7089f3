"""What users see in a terminal: one console, one progress bar, one table writer, one number formatter."""
