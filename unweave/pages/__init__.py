"""Records in, HTML and Markdown out: pages that open from a folder with no network."""
