"""The commands of ``gossan groundsync``, one file each; mounted by name in gossan.cli."""
