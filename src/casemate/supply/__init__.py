"""Where what is installed comes from: the signed lock of digests."""
