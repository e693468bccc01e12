"""Participants and flows that drive the real market: the demo day, and raw order flow."""
