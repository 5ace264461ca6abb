"""Controls and the one pass over them: observe, compare, enforce, take back."""
