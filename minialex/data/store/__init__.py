"""Large data sets as fixed squares of pixels in memory-mapped files."""
