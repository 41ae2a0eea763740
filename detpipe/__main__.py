"""`python -m detpipe`: for torchrun, and if the script is not on the path."""

from detpipe.cli import main

if __name__ == "__main__":
    main()
