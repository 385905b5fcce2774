"""The commands of ``gossan onboard``, one file each; mounted by name in gossan.cli."""
