"""Who may come in, for what, and how much of it."""
