"""Generated from protos/ by `make protos`; committed, never edited."""
