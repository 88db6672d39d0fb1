"""Workloads: what sessions are drawn from. A file, or a name of one that comes with workloom."""
