"""Conversations that live here: answers that belong to the service, prompts, titles, and other programs' files."""
