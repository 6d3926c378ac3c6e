"""The architectures: one interface, one file each, one registry."""
