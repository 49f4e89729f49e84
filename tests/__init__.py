"""Tests; a package only so that `from tests.peers import ...` reaches the peers from every test."""
