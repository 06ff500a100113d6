"""Records in, HTML and Markdown out: pages that open from a folder, and the components that the app draws with too."""
