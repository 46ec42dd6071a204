"""Kernels and exact forms against their equations in plain PyTorch and against other packages."""
