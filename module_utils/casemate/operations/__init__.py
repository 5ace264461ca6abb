"""Operations on a cluster: for each a pure `next_step`, which decides from what is seen on the members."""
