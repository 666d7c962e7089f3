"""Pictures, and the report that contains them."""
