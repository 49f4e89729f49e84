"""Gatepost: filters find, policies decide, the gateway acts. Read `gateway.model` first, then docs/flow.md."""
