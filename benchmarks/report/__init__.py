"""Benchmark records as tables and plots."""
