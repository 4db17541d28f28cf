"""The ``fastreg`` command: each command parses its options, calls one function and prints. No heavy imports."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from fastreg.log import write_line
from fastreg.version import __version__

# one module per command, in the order of the work; the help lists them so
COMMANDS = (
    "data",
    "train",
    "eval",
    "predict",
    "export",
    "report",
    "leaderboard",
    "paper",
    "recipes",
    "config",
    "corrupt",
    "show",
    "bench",
    "doctor",
)


class InOrderOfWork(TyperGroup):
    """A command group that lists its commands in the order of ``COMMANDS``; typer puts subgroups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: COMMANDS.index(name) if name in COMMANDS else len(COMMANDS))


app = typer.Typer(
    name="fastreg",
    help="Train ImageNet-scale classifiers with strong regularization, then measure their robustness.",
    cls=InOrderOfWork,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastreg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
) -> None:
    pass


INTERRUPTED = 130  # the exit code that typer gives Ctrl-C
RESUMABLE = ("data prepare", "data fetch", "eval", "corrupt")  # commands that continue when they are repeated


def load_commands() -> Any:
    """Import every command's module and return the click command of the whole line."""
    for name in COMMANDS:
        importlib.import_module(f"fastreg.cli.{name}")
    command = typer.main.get_command(app)
    _hide_type_of_flags(command)
    return command


def main() -> None:
    """Run the command line. An error is one sentence; exit code 1: the work failed, 2: wrong usage or bad input."""
    from fastreg.cli.threads import set_thread_defaults
    from fastreg.log import log_to_terminal, open_closed_streams

    set_thread_defaults()
    open_closed_streams()

    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    command: Any = None
    try:
        command = load_commands()
        log_to_terminal()
        code = command.main(args=arguments, prog_name="fastreg", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # click's errors about a wrong flag or value
            if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
                sys.exit(2)
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "fastreg"
            message = error.format_message()
            message += "" if message.endswith((".", "?")) else "."
            if path == "fastreg train" and "extra argument" in message:
                message += " The folder of a data set is --data-dir DIR."
            _exit(f"{message} See {path} --help.", getattr(error, "exit_code", 2))
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _exit(*described(error, command, arguments))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        resumable = " ".join(arguments).startswith(RESUMABLE)
        _exit("stopped; the same command continues." if resumable else "stopped.", 1)
    sys.exit(code if isinstance(code, int) else 0)


# kind of name in an "unknown ..." message -> the flag that it was given to
_KINDS = {"method": "--reg", "model": "--model", "suite": "--suite", "corruption": "--corruption"}


def described(error: Exception, command: Any, arguments: list[str]) -> tuple[str, int]:
    """The sentence and the exit code of an error of a command."""
    from fastreg.errors import InputError, RunError

    if isinstance(error, InputError | RunError):
        return _named_by_flag(str(error), command, arguments), 2 if isinstance(error, InputError) else 1
    if isinstance(error, OSError):
        where = error.filename or ("standard output" if _output_fails(error) else "")
        return f"{where}: {error.strerror}." if where else f"{error}.", 1
    if type(error).__name__ in ("Abort", "OutOfMemoryError"):
        return {"Abort": "stopped."}.get(type(error).__name__, f"out of GPU memory: lower -b. ({error})"), 1
    first = (str(error).splitlines() or ["no message"])[0]
    if isinstance(error, ValueError | TypeError):
        return first, 2
    return f"unexpected {type(error).__name__}: {first} (run again with --debug for the traceback).", 1


def _output_fails(error: OSError) -> bool:
    """Whether standard output cannot take an empty line, for the same reason."""
    try:
        print(flush=True)
    except OSError as again:
        return again.errno == error.errno
    return False


def _named_by_flag(message: str, command: Any, arguments: list[str]) -> str:
    """Replace each `` `parameter` `` in a library's message by the flag of the current command."""
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    flags = {
        parameter.name: next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
        if parameter.param_type_name == "option"
        else (parameter.metavar or parameter.name.upper()).strip("[].")
        for parameter in command.params
    }
    kind = re.match(r"unknown (\w+) '", message)
    if kind and any(_KINDS.get(kind[1]) in parameter.opts for parameter in command.params):
        message = f"{_KINDS[kind[1]]}: {message}"
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), message)


def _hide_type_of_flags(command: Any, parent: typer.Context | None = None) -> None:
    """Remove ``<bool>`` from the help of options without a value, in this command and its subcommands."""
    context = typer.Context(command, parent=parent, **(command.context_settings or {}))
    for parameter in command.get_params(context):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _hide_type_of_flags(subcommand, context)


def _exit(message: str, code: int) -> NoReturn:
    write_line(sys.stderr, f"fastreg: {message}")
    sys.exit(code)
