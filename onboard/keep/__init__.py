"""What stays on disk, and its way to the ground."""
