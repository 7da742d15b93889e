"""Real workers: the place of the second backend, and the only one that may import ray, torch, threads and the wall clock."""
