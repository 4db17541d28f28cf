"""``python -m fastreg``: the ``fastreg`` command."""

from fastreg.cli import main

if __name__ == "__main__":
    main()
