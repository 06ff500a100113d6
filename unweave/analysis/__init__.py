"""Questions asked of a finished coder."""
