"""Hourbook: the exchange. See README.md for the rooms."""
