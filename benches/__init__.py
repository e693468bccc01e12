"""Seeded workloads, rivals, floors and history; docs/reference/benchmarks.md is the method."""
