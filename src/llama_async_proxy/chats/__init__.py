"""Conversations: generating answers, prompts, titles, and the file formats of exports and imports."""
