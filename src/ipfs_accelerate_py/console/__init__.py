"""What the commands print, for people and, with --json, for programs."""
