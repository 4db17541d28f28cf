"""The ``fastreg`` command: each command parses, calls one function and prints. No logic, no heavy imports."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fastreg.version import __version__

app = typer.Typer(
    name="fastreg",
    help="Train ImageNet-scale classifiers with strong regularisation, then measure their robustness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastreg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")] = False,
) -> None:
    pass


_INTERRUPTED = 130  # the exit code that typer makes of Ctrl-C
_CONTINUING = ("data prepare", "data fetch", "eval", "corrupt")  # commands that go on where they were stopped


def main() -> None:
    """Run the command line; errors are one sentence and exit code 1 (failed) or 2 (usage or bad input)."""
    from fastreg.errors import InputError, RunError

    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        from fastreg.cli import bench, data, doctor, evaluate, train  # noqa: F401  each adds its commands to app

        command = typer.main.get_command(app)
        code = command.main(args=arguments, prog_name="fastreg", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # what click raises for a wrong flag or value
            if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
                sys.exit(2)
            usage = getattr(error, "ctx", None)
            where = usage.command_path if usage is not None else "fastreg"
            said = error.format_message()
            said += "" if said.endswith((".", "?")) else "."
            _leave(f"{said} See {where} --help.", getattr(error, "exit_code", 2))
        if isinstance(error, InputError):
            _leave(str(error), 2)
        if isinstance(error, RunError):
            _leave(str(error), 1)
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        if isinstance(error, OSError):
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            _leave(f"{what}.", 1)
        if type(error).__name__ in ("Abort", "OutOfMemoryError"):
            _leave({"Abort": "stopped."}.get(type(error).__name__, f"out of GPU memory: lower -b. ({error})"), 1)
        first = (str(error).splitlines() or ["no message"])[0]
        if isinstance(error, ValueError | TypeError):
            _leave(first, 2)
        _leave(f"unexpected {type(error).__name__}: {first} (run again with --debug for the traceback).", 1)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        continues = " ".join(arguments).startswith(_CONTINUING)
        _leave("stopped; the same command continues." if continues else "stopped.", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(sentence: str, code: int) -> None:
    print(f"fastreg: {sentence}", file=sys.stderr)
    sys.exit(code)
