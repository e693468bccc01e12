"""The journal: the command log, and the stream of released events derived from it.

Frames, segments, recovery, replay, snapshots, tape. Layouts: docs/reference/journal.md,
docs/reference/stream.md and docs/reference/snapshots.md.
"""
