"""Grading: does a student's operation do what the protocol says, and if not, where does it fail?

``minialex grade THEIRS`` holds every operation of a submission to the NumPy reference with the conformance kit
(`minialex.conformance`) and shows, for each that is wrong, the smallest call that Hypothesis found. THEIRS is a
``.py`` file, a folder of them, an importable name, ``module:Class``, or an installed backend's name.

A submission defines operations of `minialex.backend.protocol.Backend` under their own names, all or a few, as plain
functions on NumPy arrays or as methods of one class. What it leaves out is filled in by the reference (`complete`),
which is said; a class with its own ``to_device`` brings its own arrays, and nothing is filled in.

Where each part lives: `submission` finds what a student wrote and where; `worker` imports and calls it; `student` says
what is asked of a student and not of a backend's author; `keeper` is the warm process that forks one for a submission,
listens to it, and ends it when its time is up; `process` asks the keeper; `folder` does so for a class; `result` is
what is known of one operation; `table` shows it; `formats` writes it for other programs; `skeleton` writes empty ones.

A submission runs with the rights of whoever grades it, and in the process of its own checks. Where the system allows
PID namespaces it can neither hang nor end the grader; but whoever means harm, or means to cheat, can. Grade what you do
not trust in a container.
"""

from minialex.course.grading.complete import complete as complete
