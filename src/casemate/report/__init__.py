"""Reports: JSON with a published schema, one HTML file, JUnit."""
