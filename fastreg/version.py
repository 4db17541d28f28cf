"""The version, and the name under which package indexes know fastreg."""

__version__ = "0.1.0"
DISTRIBUTION = "fastreg-imagenet"  # "fastreg" on PyPI is another project
