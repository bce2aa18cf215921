"""The commands of `timesformer NAME`, a file each: it parses, calls and prints.

A file added here is a command. It has a docstring, whose first line `timesformer --help` shows, and
`main(argv)`; `check_data.py` is called `timesformer check-data`.
"""
