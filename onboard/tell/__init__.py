"""What people are told in flight."""
