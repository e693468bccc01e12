"""Public data from the released stream: instruments, depth, trades and states."""
