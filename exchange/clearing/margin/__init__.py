"""Initial margin: an integer scan of every book, from parameters that float models propose."""
