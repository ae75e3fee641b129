"""``python -m automoderate``: the command line."""

from automoderate.cli import main

main()
