"""genprior completion: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

from genprior.cli.names import OPERATORS, PRIORS, SAMPLERS

# Values of arguments that take names, which argparse does not know.
VALUES = {
    "op": OPERATORS,
    "prior": (*sorted({name.split("-")[0] for name in PRIORS}), *PRIORS),
    "sampler": ("auto", *SAMPLERS),
    "device": ("auto", "cpu", "cuda", "mps"),
}
USAGE = {
    "bash": 'eval "$(genprior completion bash)"',
    "zsh": 'eval "$(genprior completion zsh)"',
    "fish": "genprior completion fish | source",
}

BASH = """_genprior() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" name="${COMP_WORDS[1]}" words=""
  if [[ "$name" == evaluate && "${COMP_WORDS[2]}" == truth && "$COMP_CWORD" -gt 2 ]]; then name="evaluate truth"; fi
  case "$name" in
<words>
  esac
  case "$name $previous" in
<after>
    "evaluate evaluate") words="$words truth" ;;
  esac
  if [[ "$COMP_CWORD" == 1 ]]; then words="<first>"; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _genprior genprior
"""

# A shell whose completions have started must not start them again, which would drop those added since.
ZSH = """(( $+functions[compdef] )) || { autoload -U +X compinit && compinit }
autoload -U +X bashcompinit && bashcompinit
"""

FISH = """function __genprior_in
  set -l words (commandline -opc)
  set -l name "$words[2]"
  if test "$words[2..3]" = "evaluate truth"
    set name "evaluate truth"
  end
  test "$name" = "$argv"
end
"""


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior completion`."""
    parser.description = "Put the line of your shell into its start-up file: " + "; ".join(USAGE.values())
    parser.add_argument("shell", choices=USAGE)


def run(options: argparse.Namespace) -> int:
    print(SHELLS[options.shell](options.commands), end="")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[Sequence[str], list[str], argparse.Action]]:
    """The options and values of every argument: (["-o", "--out"], [], action); no options for a positional one."""
    for action in parser._actions:
        yield action.option_strings, [*map(str, action.choices or VALUES.get(action.dest, []))], action


def bash(commands: dict[str, argparse.ArgumentParser]) -> str:
    words, after = [], []
    for name, parser in commands.items():
        offered: list[str] = []
        others: list[str] = []
        for options, choices, action in _arguments(parser):
            offered += options or choices
            if options and choices:
                patterns = "|".join(f'"{name} {option}"' for option in options)
                after.append(f'    {patterns}) words="{" ".join(choices)}" ;;')
            elif action.nargs != 0:
                others += [f'"{name} {option}"' for option in options]
        after += [f'    {"|".join(others)}) words="" ;;'] * bool(others)  # files, and values that cannot be listed
        words.append(f'    "{name}") words="{" ".join(offered)}" ;;')
    cases = {
        "<first>": " ".join(name for name in commands if " " not in name),
        "<words>": "\n".join(words),
        "<after>": "\n".join(after),
    }
    script = BASH
    for place, text in cases.items():
        script = script.replace(place, text)
    return script


def zsh(commands: dict[str, argparse.ArgumentParser]) -> str:
    return ZSH + bash(commands)


def fish(commands: dict[str, argparse.ArgumentParser]) -> str:
    lines = []
    for name, parser in commands.items():
        *before, last = name.split()
        here = f"__genprior_in {before[0]}; and test (count (commandline -opc)) = 2" if before else "__genprior_in"
        lines.append(f'complete -c genprior {"" if before else "-f "}-n "{here}" -a {last}')
        for options, choices, action in _arguments(parser):
            parts = [f"-l {o[2:]}" if o.startswith("--") else f"-s {o[1:]}" for o in options]
            parts += [f'-x -a "{" ".join(choices)}"'] if choices else ["-r"] * (action.nargs != 0 and bool(options))
            if parts:
                lines.append(f'complete -c genprior -n "__genprior_in {name}" {" ".join(parts)}')
    return FISH + "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[..., str]] = {"bash": bash, "zsh": zsh, "fish": fish}
