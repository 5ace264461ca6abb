"""Where what is installed comes from: the signed lock of digests; and what hosts are made of."""
