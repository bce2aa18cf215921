"""The package's work inside other people's: one file a package, each with an extra of setup.py."""
