"""Pictures, and the report that holds them."""
