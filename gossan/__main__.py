"""``python -m gossan``: the same front door as the ``gossan`` script."""

from gossan.cli import main

if __name__ == "__main__":
    main()
