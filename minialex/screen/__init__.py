"""What a person sees in a terminal: one console, one progress bar, one table writer, one number formatter."""
