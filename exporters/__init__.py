"""Checkpoint to bundle: ONNX graphs, component tables, and the proof that they are the model that was trained.

Model exporters, not Prometheus ones.
"""
