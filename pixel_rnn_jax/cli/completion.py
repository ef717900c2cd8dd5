"""The verb `completion`: scripts for bash and zsh, and what they ask the program for."""

import re
from collections.abc import Iterator

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax import shipped
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.cli.parse import COMPLETION, TRAIN, VERBS, define
from pixel_rnn_jax.cli.printing import put
from pixel_rnn_jax.cli.verb_flags import HALVES
from pixel_rnn_jax.errors import UserError

# Bash takes = and : as the beginning of a new word, unless COMP_WORDBREAKS says otherwise.
BASH = r"""
_pixel_rnn_jax() {
  local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT}
  local word=${line##* } breaks=${COMP_WORDBREAKS//[^=:]/}
  local before=${word%"${word##*[${breaks:- }]}"}
  COMPREPLY=($("${1/#\~/$HOME}" completion --line="$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o default -o nospace -F _pixel_rnn_jax pixel-rnn-jax
"""
ZSH = r"""
_pixel_rnn_jax() {
  local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
  local -a found=(${(f)"$($words[1] completion --line="$line" 2>/dev/null)"})
  if (( $#found )); then compadd -Q -S '' -a found; else compset -P '*='; _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _pixel_rnn_jax pixel-rnn-jax
"""
SPLITS = ("train", "validation", "test")
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def completion(values: Flags) -> None:
    """Prints a script with which bash or zsh completes commands."""
    if values.line is not None:
        put("\n".join(candidates(values.line)))
    elif values.shell in SCRIPTS:
        put(SCRIPTS[values.shell].strip())
    else:
        raise UserError(
            'completion needs a shell, bash or zsh: eval "$(pixel-rnn-jax completion bash)"'
        )


def candidates(line: str) -> list[str]:
    """Returns how the last word of a command may go on; nothing where a file may stand.

    A word goes on to its next = or : or full stop only. One that is complete ends with a space.
    """
    *words, last = line.split(" ")[1:] or [""]
    words = [word for word in words if word]
    verb = words[0] if words and not words[0].startswith("-") else TRAIN
    found: list[str] = []
    if last.startswith("-"):
        found = list(_flags(verb)) if verb in VERBS else []
    elif not words or words == [COMPLETION]:
        found = [f"{word} " for word in (SCRIPTS if words else VERBS)]
    part = re.compile(re.escape(last) + "([^=:.]+[=:.]?|[=:.])")
    return list(dict.fromkeys(match[0] for word in found if (match := part.match(word))))


def _flags(verb: str) -> Iterator[str]:
    """Yields the flags of a verb, with each value that can be named."""
    yield "--help "
    values = define(verb)
    for name in values:
        default = values[name].default
        if not values[name].boolean:
            yield f"--{name}="
        elif default is not True:
            yield f"--{name} "
        if values[name].boolean and default is not False:
            yield f"--no{name} "
    named = {"model": shipped.names(), "known": HALVES, "split": SPLITS}
    for name in named.keys() & {*values}:
        yield from (f"--{name}={word} " for word in named[name])
    if verb != TRAIN:
        return
    single = (*config_lib.ARCHITECTURES, "multi_scale")
    several = (f"{architecture},multi_scale" for architecture in config_lib.ARCHITECTURES)
    variants = ["", *(f":{variant}" for variant in (*single, *several))]
    yield "--config="
    yield from (
        f"--config={name}{rest} " for name in config_lib.config_names() for rest in variants
    )
    for name, _ in config_lib.leaves(config_lib.Config()):
        yield f"--config.{name}="
        yield from (f"--config.{name}={word} " for word in config_lib.field_choices(name))
