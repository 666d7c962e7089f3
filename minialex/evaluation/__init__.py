"""How good a network is: errors and calibration."""
