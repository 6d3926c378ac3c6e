"""The race: Interlinear against what a user would pick instead, on the same machine and the same work."""
