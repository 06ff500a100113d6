"""From a model to shuffled rows."""
