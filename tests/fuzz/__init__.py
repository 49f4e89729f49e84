"""Properties that hold whatever comes: quick in every run, as long as wanted by `python -m tests.fuzz`."""
