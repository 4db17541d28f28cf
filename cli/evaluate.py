from fastreg.cli import app  # noqa: F401
