"""Filters find. One module, one question; see `gateway.model.PureFilter` and `AskingFilter`.

To add one, write three files with the same stem and nothing else:
`filters/x.py`, `policies/x.toml` and `tests/filters/test_x.py`.
"""
