"""Data sets in the formats that their users have."""
