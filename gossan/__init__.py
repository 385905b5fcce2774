"""The foundation: errors, settings, console and the front door."""
