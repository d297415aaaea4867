"""Engines: the contract for running models, and its implementations."""
