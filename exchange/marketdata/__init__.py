"""Public market data derived from the released stream: books, trades, states, statistics,
prints."""
