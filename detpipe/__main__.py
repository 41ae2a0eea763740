"""`python -m detpipe`, for torchrun and for where no script is on the path."""

from detpipe.cli import main

if __name__ == "__main__":
    main()
