"""What the log can be asked afterwards: orders, books, differences, audit rows, bulletins.

Everything here reads a market's log, replays it through an engine of its own and changes nothing on
disk. It decides nothing: the answers are the engine's events and state, put into words and rows.
"""
