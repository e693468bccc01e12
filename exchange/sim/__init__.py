"""Simulations of the market: the demo day, sandboxes, raw order flows, and seeded fault storms."""
