"""Weights and key-value caches of few bits: formats, solvers, planning, and folders of quantised shards."""
