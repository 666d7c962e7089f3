"""Writing files so that no kill and no fault leaves them half written."""
