"""What the three case studies share: the workloads, the figures of a run, tables of published against simulated."""
