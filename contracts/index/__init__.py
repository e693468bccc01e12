"""The settlement index: from price observations to a month's final settlement price."""
