"""Benchmark records as tables and plots, for the terminal and for the READMEs."""
