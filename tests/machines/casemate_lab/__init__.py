"""The lab: throw-away machines for the tests, the stories and the demo. It does not ship to users."""
