"""minialex: AlexNet (Krizhevsky, Sutskever, Hinton 2012), whole, small enough to read in an afternoon.

Start reading at `minialex.network.models` (the paper's table as code), then `minialex.network.layers`, then the
reference backend ``minialex_numpy``. Importing this package needs NumPy and the standard library alone.
"""

__version__ = "0.1.0"
