"""Configuration: the schema (`defaults`), how files are read (`node`), the checks (`validate`)."""
