"""Llama Async Proxy: finds GGUF models, runs llama.cpp for them, proxies inference, shows it live."""

__version__ = "0.2.0"
