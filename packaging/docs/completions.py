"""Shell completions from the same options: bash, zsh and fish."""

import re

# What a value is called in --help -> what completes it.
FILES, USERS, GROUPS, PIDS = "files", "users", "groups", "pids"
_KINDS = {"PATH": FILES, "FILE": FILES, "USER": USERS, "GROUP": GROUPS}
_ENUMERATION = re.compile(r"((?:[a-z_]+, )+[a-z_]+ or [a-z_]+)\b.*")


def values_of(option):
    """A kind of above, a list of words, or None: anything."""
    if option.name == "--pid":
        return PIDS
    if option.value in _KINDS:
        return _KINDS[option.value]
    if re.fullmatch(r"[\w-]+(\|[\w-]+)+", option.value):
        return option.value.split("|")
    listed = _ENUMERATION.fullmatch(option.text)
    if listed and option.value:
        return re.split(r", | or ", listed[1])
    return None


def spelled(option) -> str:
    return option.name + ("=" if option.value else "")


def head(shell: str) -> str:
    return f"# {shell} completion for bulkhead. Generated from what bulkhead --help says.\n"


# --- bash ----------------------------------------------------------------------------------------

_BASH_VALUES = {FILES: 'COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames',
                USERS: 'COMPREPLY=($(compgen -u -- "$cur"))',
                GROUPS: 'COMPREPLY=($(compgen -g -- "$cur"))',
                PIDS: 'COMPREPLY=($(compgen -W "$(pidof bulkhead)" -- "$cur"))'}

_BASH_END = """
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}
complete -F _bulkhead bulkhead
complete -F _bulkhead vhost-user-blk
complete -F _bulkhead vhost-user-net
"""


def bash(commands: list) -> str:
    names = [command.name for command in commands if command.name]
    text = head("bash") + """_bulkhead() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= option= words=
  # bash breaks --option=value at the '='.
  if [[ $cur == = ]]; then
    option=$prev cur=
  elif [[ $prev == = ]]; then
    option=${COMP_WORDS[COMP_CWORD - 2]}
  elif [[ $prev == --* && $COMP_CWORD -gt 2 ]]; then
    option=$prev
  fi
  if [[ ${COMP_WORDS[0]##*/} == vhost-user-@(blk|net) ]]; then
    command=${COMP_WORDS[0]##*-}
  elif [[ $COMP_CWORD -gt 1 ]]; then
    command=${COMP_WORDS[1]}
  fi
  case $command:$option in
"""
    for command in commands:
        for option in command.options:
            values = values_of(option)
            if values is None:
                continue
            action = _BASH_VALUES[values] if isinstance(values, str) else (
                f'COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$cur"))')
            text += f"    {command.name}:{option.name}) {action}; return ;;\n"
    text += "  esac\n  case $command in\n"
    text += f'    "") words="{" ".join(names)} --help --version" ;;\n'
    for command in commands:
        if command.name:
            words = " ".join(spelled(option) for option in command.options)
            text += f'    {command.name}) words="{words}" ;;\n'
    return text + "  esac" + _BASH_END


# --- zsh -----------------------------------------------------------------------------------------

_ZSH_VALUES = {FILES: "_files", USERS: "_users", GROUPS: "_groups",
               PIDS: "($(pidof bulkhead))"}


def _zsh_quoted(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", "'\\''")


def _zsh_option(option) -> str:
    text = f"{option.name}{'=' if option.value else ''}[{_zsh_quoted(option.text)}]"
    if option.value:
        values = values_of(option)
        action = " " if values is None else (
            _ZSH_VALUES[values] if isinstance(values, str) else f"({' '.join(values)})")
        text += f":{_zsh_quoted(option.value)}:{action}"
    return f"'{text}'"


def zsh(commands: list) -> str:
    text = "#compdef bulkhead vhost-user-blk vhost-user-net\n" + head("zsh")
    text += """_bulkhead() {
  local command=$words[2]
  if [[ ${words[1]:t} == vhost-user-(blk|net) ]]; then
    command=${words[1]##*-}
  elif (( CURRENT == 2 )); then
    local -a commands=(
"""
    for command in commands:
        if command.name:
            text += f"      '{command.name}:{_zsh_quoted(command.summary)}'\n"
    text += """    )
    _describe command commands
    return
  else
    shift words
    (( CURRENT-- ))
  fi
  case $command in
"""
    for command in commands:
        if command.name:
            options = " \\\n        ".join(_zsh_option(option) for option in command.options)
            text += f"    {command.name})\n      _arguments \\\n        {options}\n      ;;\n"
    return text + '  esac\n}\n_bulkhead "$@"\n'


# --- fish ----------------------------------------------------------------------------------------

_FISH_VALUES = {FILES: "-F", USERS: "-xa '(__fish_complete_users)'",
                GROUPS: "-xa '(__fish_complete_groups)'", PIDS: "-xa '(pidof bulkhead)'"}


def _fish_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def fish(commands: list) -> str:
    text = head("fish") + "complete -c bulkhead -f\n"
    for command in commands:
        if command.name:
            text += ("complete -c bulkhead -n __fish_use_subcommand "
                     f"-a {command.name} -d '{_fish_quoted(command.summary)}'\n")
    for command in commands:
        for option in command.options:
            values = values_of(option)
            argument = "" if not option.value else " -x" if values is None else " " + (
                _FISH_VALUES[values] if isinstance(values, str) else f"-xa '{' '.join(values)}'")
            text += (f"complete -c bulkhead -n '__fish_seen_subcommand_from {command.name}' "
                     f"-l {option.name.removeprefix('--')}{argument} "
                     f"-d '{_fish_quoted(option.text)}'\n")
    return text
