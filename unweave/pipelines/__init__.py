"""One verb each: straight lines that join the rooms below."""
