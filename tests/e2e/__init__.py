"""The whole gateway, as a process tree of its own, driven by programs nobody here wrote."""
