"""Alternatives that a user might pick, each used as its own documentation recommends."""
