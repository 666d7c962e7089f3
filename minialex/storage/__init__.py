"""Writes files so that neither a kill nor a fault leaves them half written."""
