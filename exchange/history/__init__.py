"""Queries on a finished log: orders, books, differences, audit rows, bulletins.

Everything here reads a market's log, replays it through an engine of its own and changes nothing on
disk. Nothing is decided here: the answers are the engine's events and state, as text and rows.
"""
