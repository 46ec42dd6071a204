"""Stereo depth estimation."""
