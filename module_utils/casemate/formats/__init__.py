"""Files of other programs, read as those programs read them."""
