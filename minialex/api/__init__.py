"""What a Python user types on the first day."""
