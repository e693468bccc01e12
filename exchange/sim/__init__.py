"""What drives the real market: the demo day, raw order flow, and storms of faults from a seed."""
