"""Seeded workloads, rival programs, floors and history; docs/reference/benchmarks.md has the
method."""
