"""Readers, pipelines and made-up data."""
