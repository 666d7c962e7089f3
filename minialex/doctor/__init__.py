"""``minialex doctor``: what this machine has, whether it works together, and the line that mends what does not.

`checks` is what a finding is; `processor`, `wheels`, `driver` and `meter` look at one thing each; `pair` runs a network
on two devices; `examine` puts them together. What needs a GPU goes through two small protocols, `driver.Driver` (the
NVIDIA driver, by its C library) and `meter.Meter` (CuPy), so that all of it is tested on machines without one.
"""
