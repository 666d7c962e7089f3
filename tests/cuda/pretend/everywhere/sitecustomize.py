"""On the path, this puts the pretend driver under every Python that is started, whoever starts it."""

import pretend_devices  # noqa: F401
