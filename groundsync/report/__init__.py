"""The one-page report: why rank 1 stands before rank 2, what was not seen, what is uncalibrated."""
