"""``python -m workloom.cli``."""

from workloom.cli import main

main()
