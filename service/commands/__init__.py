"""The command ``interlinear``: what a caller of the service runs, and what starts the service."""
