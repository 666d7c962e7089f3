"""Looks inside a trained network: kernels, activations, what it relies on, what excites it, what it finds similar.

These are plain functions of a `minialex.engine.session.Session` and images; `minialex.figures.look` draws their
results, and `minialex look …` and `minialex features` are their commands.
"""
