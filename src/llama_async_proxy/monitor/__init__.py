"""Watching the machine and the service: readings, samples, counters, logs."""
