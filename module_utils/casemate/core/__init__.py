"""What every kind is written against: settings and their schema, observations and verdicts."""
