"""What is loaded: bundles, the use cases that answer from them, and which of them a request is meant for."""
