"""Speed and memory of the whole gateway, beside Postfix: `make bench`. Nothing here asserts a time."""
