"""Videos with labels: lists, decoding, clips, and the data sets made of them."""
