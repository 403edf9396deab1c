"""Rule 35: secrets never travel in argv, where every user of the machine can read them."""

import re

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from aitbc.stack import programs
from aitbc.stack.paths import Var

SECRET = re.compile(r"password|secret|private|token|(^|-)key(-|$)|seed|mnemonic")
# Options of these names that hold no secret, and why.
HARMLESS = {("deploy_contracts", "--token"): "the address of a contract"}
OURS = sorted(name for name, app in get_commands().items() if str(app).startswith(("aitbc", "apps")))


@pytest.mark.parametrize("name", OURS)
def test_no_command_takes_a_secret_as_an_argument(name):
    """An option named like a secret is a switch for standard input, or the name of a file."""
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    for action in parser._actions:
        for option in action.option_strings:
            if SECRET.search(option) and (name, option) not in HARMLESS:
                assert action.nargs == 0 or option.endswith(("-file", "-stdin")), option


def test_the_commands_looked_at_are_all_of_ours():
    assert {"create_user", "create_api_key", "run_miner", "verify_receipt", "stack"} <= set(OURS)


def test_a_password_given_as_an_argument_is_refused(db):
    with pytest.raises(CommandError, match="unrecognized arguments"):
        call_command("create_user", "--email", "a@example.com", "--role", "client", "--password", "hunter2")


def test_the_platforms_processes_are_started_without_secrets_in_their_arguments(settings):
    started = programs.platform_programs(Var(root=settings.VAR_DIR), programs.Ports(web=1, stream=2))

    assert len(started) >= 6
    for program in started:
        command = " ".join(program.command)
        assert settings.SECRET_KEY not in command
        assert "ait_" not in command
        assert not re.search(r"://[^/\s]+:[^/\s]+@", command)
