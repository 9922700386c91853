"""`orc`: the command line."""
