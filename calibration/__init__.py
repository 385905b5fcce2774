"""What is known of cameras, mounts, the Earth and clocks."""
