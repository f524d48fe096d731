"""Shell commands that a run starts: scripts that judge samples, and hooks."""
