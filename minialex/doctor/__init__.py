"""``minialex doctor``: what this machine has, whether it works, and the command that fixes what does not.

`processor` examines the processor; what only a backend knows (drivers, packages, its own devices) comes from its
``diagnose`` (see `minialex.backend.findings`); `pair` runs a network on two devices; `examine` combines everything.
"""
