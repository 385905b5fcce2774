"""The ground: receive, ingest, fuse with prior geology, rank, export, show."""
