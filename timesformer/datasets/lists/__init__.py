"""Lists of videos, as people have them."""
