"""The ``fastreg`` command: each command parses, calls one function and prints. No logic, no heavy imports."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Annotated, Any

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

# the modules that add their commands to app, in the order in which the help lists them: that of the work
COMMANDS = ("data", "train", "eval", "report", "paper", "recipes", "corrupt", "show", "bench", "doctor")


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
    from fastreg.log import log_to_terminal

    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        for name in COMMANDS:
            importlib.import_module(f"fastreg.cli.{name}")
        command = typer.main.get_command(app)
        log_to_terminal()
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
            _leave(_named_by_flag(str(error), arguments), 2)
        if isinstance(error, RunError):
            _leave(_named_by_flag(str(error), arguments), 1)
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


def _named_by_flag(sentence: str, arguments: list[str]) -> str:
    """Replace each `` `parameter` `` of a library's message by the flag of the command at hand that sets it."""
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    flags = {
        parameter.name: next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
        if parameter.param_type_name == "option"
        else (parameter.metavar or parameter.name.upper()).strip("[].")
        for parameter in command.params
    }
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), sentence)


def _leave(sentence: str, code: int) -> None:
    print(f"fastreg: {sentence}", file=sys.stderr)
    sys.exit(code)
