"""The daemon on the drone: capture, place, scan, store, tell."""
