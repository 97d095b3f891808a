"""``python -m jali`` is the command ``jali``, for environments whose scripts are not on the path."""

from jali.cli import main

if __name__ == "__main__":
    main()
