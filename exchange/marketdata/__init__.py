"""Public data from the released stream: books, trades, states, figures of the day, prints."""
