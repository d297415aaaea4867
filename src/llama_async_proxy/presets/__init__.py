"""Presets: INI files of engine options that people keep, read as llama-server's router reads them. Pure."""
