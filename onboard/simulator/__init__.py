"""A world with known geology, a camera that renders it, an autopilot that flies over it."""
