"""`pytest --backend NAME` restricts what the conformance kit's tests run on."""

pytest_plugins = ["minialex.conformance.plugin"]
