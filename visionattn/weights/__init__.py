"""Weights in and out of files, without executing anything that a file says."""
