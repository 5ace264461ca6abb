"""What is refused before the first change: inputs, hosts, and what a cluster was born with."""
