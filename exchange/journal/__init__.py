"""The log and the stream made from it: frames, segments, recovery, replay, tape.

Layouts: docs/reference/journal.md and docs/reference/stream.md.
"""
