"""What a user might pick instead, each used as its own documentation would have it."""
