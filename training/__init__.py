"""Text to checkpoint: corpora, models, the training loop and its evaluation (PyTorch)."""
