import subprocess
import sys

import click

from st_client.cli import COMMANDS, run, st


def test_the_table_says_what_each_command_says_of_itself():
    context = click.Context(st)
    for name, (_, summary) in COMMANDS.items():
        command = st.get_command(context, name)
        assert isinstance(command, click.Command), name
        assert command.name == name
        own = (command.help or "").partition("\n")[0]
        assert own.split(" ")[0] == summary.split(" ")[0], name


def test_every_command_that_prints_takes_json():
    context = click.Context(st)
    for name in COMMANDS:
        command = st.get_command(context, name)
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert any("--json" in option.opts for option in leaf.params), leaf.name


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom st_client.cli import run\nassert run(['--help']) == 0\n"
        "heavy = {'httpx', 'pydantic', 'rich', 'yaml', 'boto3'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_and_version_and_usage_errors(capsys):
    assert run(["--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert run(["nonsense"]) == 2
    assert run(["jobs", "--limit", "0"]) == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err
