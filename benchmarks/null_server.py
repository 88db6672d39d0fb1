"""The null server of the selftest, as a script: see workloom.drive.null_server for its options and its record."""

from workloom.drive.null_server import main

if __name__ == "__main__":
    main()
