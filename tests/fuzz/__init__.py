"""Damaged files for every reader: `make fuzz` for an hour, test_fuzz.py for some seconds."""
