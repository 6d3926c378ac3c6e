"""The contract on disk: what trainer, exporter and service must agree on to the last bit, and how to read it."""
