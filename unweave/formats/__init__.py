"""Other people's files, one format per module."""
