"""``minialex doctor``: what this machine has, whether it works, and the command that fixes what does not.

`processor` looks at the processor; what a backend alone knows (drivers, packages, devices of its own) comes from its
``diagnose`` (see `minialex.backend.findings`); `pair` runs a network on two devices; `examine` puts it all together.
"""
