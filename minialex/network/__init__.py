"""What the network is: its layers, the paper's table, its parameters, and its variants."""
