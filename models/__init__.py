"""What is known of weights and pixels, and nothing of maps or aircraft."""
