"""What the library generates for its site: figures, tables and listings that the pages include."""
