"""Looking inside a trained network: kernels, activations, what it relies on, what excites it, what it finds similar.

Plain functions of a `minialex.engine.session.Session` and images; `minialex.figures.look` draws what they return, and
`minialex look …` and `minialex features` are their commands.
"""
