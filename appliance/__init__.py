"""What turns the gateway into an appliance. It may use `gateway.config` and `gateway.store`; nobody imports it."""
