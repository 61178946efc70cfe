"""What shells complete, asked of the shells themselves."""

import os
import shutil
import subprocess
import sys

import pytest

from genprior.cli import completion
from genprior.samplers import SAMPLERS


@pytest.fixture(scope="module")
def scripts():
    """As a new process prints them, which loads no torch: shells ask whenever they start."""
    code = (
        "import sys\nfrom genprior.cli import main\n"
        "for shell in ('bash', 'zsh', 'fish'): main(['completion', shell]); print('====')\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return dict(zip(("bash", "zsh", "fish"), run.stdout.split("====\n")))


@pytest.fixture
def completed(scripts):
    """What bash offers after a line."""
    ask = 'source /dev/stdin\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n_genprior\nprintf "%s\\n" "${COMPREPLY[@]}"\n'

    def completed(line):
        command = ["bash", "-c", ask, "bash", *line.split(" ")]
        made = subprocess.run(command, input=scripts["bash"], capture_output=True, text=True, check=True, timeout=30)
        assert made.stderr == ""
        return [word for word in made.stdout.split("\n") if word]

    return completed


def test_bash_completes_commands_options_and_values(completed):
    assert completed("genprior res") == ["restore"]
    assert {"restore", "evaluate", "priors", "info", "completion", "demo"} <= set(completed("genprior "))
    assert completed("genprior restore --conc") == ["--concat"]
    assert completed("genprior restore a.png --op gauss") == ["gaussian-deblur"]
    assert set(completed("genprior restore --prior ddpm")) == {"ddpm", "ddpm-flowers", "ddpm-mnist", "ddpm-photo"}
    assert set(completed("genprior restore --sampler ")) == {"auto", *SAMPLERS}
    assert "flow" not in completed("genprior restore --sampler ")
    # files, by complete -o default
    assert completed("genprior restore phot") == completed("genprior restore --mask ") == []
    assert completed("genprior evaluate tru") == ["truth"]
    assert set(completed("genprior evaluate truth --suite mi")) == {"mixture"}
    assert "ddpm" in completed("genprior train ")
    assert completed("genprior completion f") == ["fish"]


def test_other_shells_have_every_option_of_every_command(scripts):
    zsh, fish = scripts["zsh"], scripts["fish"]
    assert zsh.endswith(scripts["bash"])
    assert 'complete -c genprior -f -n "__genprior_in" -a restore' in fish
    assert 'complete -c genprior -n "__genprior_in restore" -l concat\n' in fish
    assert 'complete -c genprior -n "__genprior_in restore" -l mask -r\n' in fish
    assert '-n "__genprior_in evaluate truth" -l suite -x -a "gaussian mixture' in fish
    assert set(completion.SHELLS) == set(completion.USAGE)


# What fish and zsh offer after a line, where there are a file photo.png and a folder phase.
OFFERED = {
    "genprior res": ["restore"],
    "genprior restore --conc": ["--concat"],
    "genprior restore a.png --op gauss": ["gaussian-deblur"],
    "genprior restore --prior ddpm": ["ddpm", "ddpm-flowers", "ddpm-mnist", "ddpm-photo"],
    "genprior restore ph": ["phase", "photo.png"],
    "genprior restore --mask ph": ["phase", "photo.png"],
    "genprior restore --mask ": ["phase", "photo.png"],
    "genprior restore --scale ": ["phase", "photo.png"],  # no better known, and no options
    "genprior restore train --con": ["--concat"],  # a file called as a command is
    "genprior evaluate --lp": ["--lpips"],
    "genprior evaluate tru": ["truth"],
    "genprior evaluate phase tru": [],
    "genprior evaluate truth --suite mi": ["mixture"],
    "genprior evaluate truth --lp": [],
    "genprior completion f": ["fish"],
}


@pytest.fixture
def place(scripts, tmp_path):
    """A folder with the files of `OFFERED`, and environment variables for the shells."""
    (tmp_path / "photo.png").touch()
    (tmp_path / "phase").mkdir()
    (tmp_path / ".scripts").mkdir()
    for shell, script in scripts.items():
        (tmp_path / ".scripts" / shell).write_text(script)
    return tmp_path


def offered(place, *command):
    """Of each line, sorted, as a shell's script prints it: words with | between them, a line for each."""
    lines = [*OFFERED, "genprior "]
    environment = {**os.environ, "HOME": str(place), "ZDOTDIR": str(place), "TERM": "dumb"}
    made = subprocess.run(
        [*command, *lines], capture_output=True, text=True, check=True, timeout=60, cwd=place, env=environment
    )
    assert made.stderr == ""
    told = [sorted({word.rstrip("/") for word in line.split("|") if word}) for line in made.stdout.splitlines()]
    return dict(zip(lines, told, strict=True))


def check(found):
    first = found.pop("genprior ")
    assert found == OFFERED
    assert {"restore", "evaluate", "priors", "info", "completion", "demo"} <= set(first)
    assert "photo.png" not in first


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_commands_options_values_and_files(place):
    ask = "source .scripts/fish; for line in $argv; echo (complete -C $line | string join '|'); end"
    check(offered(place, "fish", "--no-config", "-c", ask))


# A shell in a pseudo-terminal. Its Tab completes, prints what there was to choose from, and clears the line.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source .scripts/asked'
zpty -r shell told '*</told>*'
for line; do
  zpty -w -n shell "$line"$'\t'
  zpty -r shell told '*</told>*'
  told=${told##*<told>}
  print -r -- ${told%%</told>*}
done
zpty -d shell
"""
ASKED = r"""
PS1= PS2=
autoload -U +X compinit && compinit -D
source .scripts/zsh
compadd() {
  local -a these
  [[ " $* " == *" -"[AOD]" "* ]] || { builtin compadd -O these "$@"; told+=($these); }
  builtin compadd "$@"
}
tell() {
  typeset -ga told=()
  zle complete-word
  print -rn -- "<told>${(j:|:)told}</told>"
  BUFFER=
}
zle -N tell
bindkey '^I' tell
print -rn -- "<told></told>"
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_commands_options_values_and_files(place):
    (place / ".scripts" / "asked").write_text(ASKED)
    check(offered(place, "zsh", "-f", "-c", ZSH, "zsh"))
