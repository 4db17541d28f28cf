"""Check and time every kernel on a GPU: ``python -m fastreg.benchmarks.gpu_check``."""
