"""`python -m tutorial_lib COMMAND`: see `cli/`."""

from tutorial_lib.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
