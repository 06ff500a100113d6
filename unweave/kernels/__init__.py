"""The sparse operations, each a folder with its plain reference beside the fast path."""
