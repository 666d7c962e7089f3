"""Recipes: every choice of a run as a named field, with the paper's value as its default."""
