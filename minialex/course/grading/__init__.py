"""Grading: does a student's operation do what the protocol says, and if not, where does it fail?

``minialex grade THEIRS`` holds every operation of a submission to the NumPy reference with the conformance kit
(`minialex.conformance`) and shows, for each that is wrong, the smallest call that Hypothesis found. THEIRS is a
``.py`` file, a folder of them, an importable name, ``module:Class``, or an installed backend's name.

A submission defines operations of `minialex.backend.protocol.Backend` under their own names, all or a few, as plain
functions on NumPy arrays or as methods of one class. The reference fills in what is missing (`complete`), with a
remark; a class with its own ``to_device`` brings its own arrays, and nothing is filled in.

The modules: `submission` finds what a student wrote and where; `worker` imports and calls it; `student` has the rules
for students, as opposed to authors of backends; `keeper` is the warm process that forks one per submission, listens to
it, and ends it when its time is up; `process` talks to the keeper; `folder` does so for a class; `result` is the result
for one operation; `table` shows it; `formats` writes it for other programs; `skeleton` writes empty submissions.

A submission runs with the rights of the person who grades it, and in the same process as its checks. If the system
allows PID namespaces, it can neither hang nor end the grader; but malicious code can do harm, or cheat. Grade what you
do not trust in a container.
"""

from minialex.course.grading.complete import complete as complete
