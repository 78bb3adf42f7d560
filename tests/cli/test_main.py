"""The command line as a whole: help, settings from every source, mistakes, pipes and signals."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.agents import (
    QUICK,
    Restore,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    deliveries,
    finished,
    journal_in,
    receipt_in,
    wait_until,
)

import restore_agent
import restore_agent.restore.poller
from restore_agent.cli.main import cli
from restore_agent.cli.options import CONNECTION, LIMITS, OPTIONS, OUTPUT_OPTIONS, TARGET

COMMANDS = cli.list_commands(click.Context(cli))


def python(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload, no-any-return]


# Help and version


def test_help_names_every_command(run_agent: RunAgent) -> None:
    ended = run_agent(["--help"])
    assert ended.code == 0
    assert set(re.findall(r"^  ([a-z-]+)  ", ended.out, re.MULTILINE)) >= set(COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(run_agent: RunAgent, command: str, flag: str) -> None:
    ended = run_agent([command, flag])
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: restore-agent {command} [OPTIONS]")
    assert re.search(rf"Examples:\s+.*restore-agent(.pyz)? {command}", ended.out)
    assert max(map(len, ended.out.splitlines())) <= 100


def words(text: str) -> list[str]:
    """The words of a help text without its layout."""
    return text.split()


@pytest.mark.parametrize("columns", [80, 100, 160])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_the_same_words_at_every_width(
    run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    """A name or URL that is broken at a hyphen, or a word that is broken at the edge, makes two words."""
    args = [*([command] if command else []), "--help"]
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run_agent(args).out
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = run_agent(args).out
    assert words(narrow) == words(wide)
    text, _, _ = wide.partition("\nExamples:")
    assert max(map(len, text.splitlines())) <= min(columns, 100)
    text, _, _ = narrow.partition("\nExamples:")
    assert max(map(len, text.splitlines())) <= 60


def test_help_of_run_has_its_options_under_headings(run_agent: RunAgent) -> None:
    headings = re.findall(r"^(\S.*):$", run_agent(["run", "--help"]).out, re.MULTILINE)
    assert headings == [
        "Connection",
        "What to restore",
        "Destination",
        "Limits",
        "Output",
        "Other options",
        "Examples",
    ]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_has_every_option_with_its_variable_and_default(run_agent: RunAgent, command: str) -> None:
    text = " ".join(run_agent([command, "--help"]).out.split())
    for name in (*CONNECTION, *TARGET, *LIMITS, *OUTPUT_OPTIONS):
        option = OPTIONS[name]
        assert option.flag in text
        assert option.env is None or f"${option.env}" in text
        assert option.default in (None, "false") or f"default: {option.default}" in text
    assert "--project-id" in text
    assert "--config" in text


def test_there_is_no_flag_for_the_private_key(run_agent: RunAgent) -> None:
    for command in COMMANDS:
        assert not re.search(r"--private-key(?!-file)", run_agent([command, "--help"]).out)
    assert run_agent(["run", "--private-key=abc"]).code == 2


def test_version(run_agent: RunAgent) -> None:
    ended = run_agent(["--version"])
    assert (ended.code, ended.out.strip()) == (0, f"restore-agent, version {restore_agent.__version__}")


def test_python_m_runs_the_same_program() -> None:
    ended = python("-m", "restore_agent", "--version")
    assert (ended.returncode, ended.stdout.strip()) == (0, f"restore-agent, version {restore_agent.__version__}")
    assert "Usage: restore-agent" in python("-m", "restore_agent", "--help").stdout


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_help_and_version_do_not_load_the_modules_of_a_run(args: list[str]) -> None:
    script = (
        "import sys\n"
        "from restore_agent.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *sorted({'httpx', 'asyncio', 'tqdm', 'aiofiles'} & set(sys.modules)))\n"
    )
    assert python("-c", script, *args).stdout.splitlines()[-1].strip() == "loaded:"


def test_each_command_in_the_list_is_one_that_can_be_called() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
        assert command.name == name


def test_a_misspelled_command_is_refused_with_the_closest_command(run_agent: RunAgent) -> None:
    assert "'verify'" in run_agent(["verfy"]).err


def processor_time(*args: str) -> float:
    """The least user and system time of a few runs of Python, in seconds; other work on the host does not count."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    def one() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*args, env=env).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    return min(one() for _ in range(5))


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_help_and_version_cost_little_more_than_the_library_that_reads_options(flag: str) -> None:
    least = processor_time("-c", "import click")
    assert processor_time("-m", "restore_agent", flag) < 1.8 * least  # 1.3 on an idle host


def test_without_a_command_the_help_is_shown(run_agent: RunAgent) -> None:
    ended = run_agent([])
    assert ended.code == 2
    assert "Usage:" in ended.out + ended.err


# Mistakes


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rum"], "No such command 'rum'"),
        (["run", "--no-such-option"], "--no-such-option"),
        (["run", "--retry=3"], "--retr"),
        (["run", "--dest"], "--dest"),
        (["run", "extra"], "extra"),
        (["run"], "--url"),
        (["plan"], "--url"),
        (["verify"], "--dest"),
        (["status"], "--dest"),
        (["run", "--poll-interval=soon"], "--"),
        (["simulator", "--port=http"], "--port"),
        (["simulator", "--shards=-1"], "--shards"),
        (["simulator", "--archive-size=big"], "--archive-size"),
        (["simulator", "--fault=no-such"], "no-such"),
    ],
)
def test_a_usage_error_is_2_with_one_clear_error_and_no_traceback(
    run_agent: RunAgent, args: list[str], said: str
) -> None:
    ended = run_agent(args)
    assert ended.code == 2
    assert said in ended.err
    assert "[usage]" in ended.err
    assert "next: " in ended.err
    assert "Traceback" not in ended.err + ended.out


def test_an_invalid_value_is_refused_with_option_value_and_form(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator(), "--wait-timeout=6 hours", "--output=text")
    assert ended.code == 2
    assert "--wait-timeout" in ended.err
    assert "6 hours" in ended.err
    assert "15m" in ended.err


def test_a_port_that_is_in_use_is_a_usage_error(run_agent: RunAgent, simulator: StartSimulator) -> None:
    port = simulator().hello["url"].rsplit(":", 1)[1]
    ended = run_agent(["simulator", f"--port={port}", "--archive-size=64K"])
    assert ended.code == 2
    assert "ddress" in ended.err


# Settings from every source


def as_environment(sim: object, dest: Path) -> dict[str, str]:
    env = {"RESTORE_AGENT_DEST": str(dest), "RESTORE_AGENT_OUTPUT": "json"}
    for arg in connection_args(sim):  # type: ignore[arg-type]
        name, value = arg.removeprefix("--").split("=", 1)
        env["RESTORE_AGENT_" + name.replace("-", "_").upper()] = value
    return env


def test_every_setting_can_be_set_in_the_environment(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator(shards=1, tls=True)
    ended = run_agent(["run", *QUICK], as_environment(sim, dest))
    assert ended.code == 0, ended.out
    assert ended.verdicts == ["verified"] * 2


def test_the_key_itself_can_be_set_in_the_environment(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator(shards=1)
    env = as_environment(sim, dest)
    del env["RESTORE_AGENT_PRIVATE_KEY_FILE"]
    ended = run_agent(["run", *QUICK], {**env, "RESTORE_AGENT_PRIVATE_KEY": sim.hello["private_key"] + "\n"})
    assert ended.code == 0


def test_the_key_can_be_a_credential_of_systemd(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    env = as_environment(sim, dest)
    del env["RESTORE_AGENT_PRIVATE_KEY_FILE"]
    (tmp_path / "private-key").write_text(sim.hello["private_key"])
    assert run_agent(["run", *QUICK], {**env, "CREDENTIALS_DIRECTORY": str(tmp_path)}).code == 0


def config_file(sim: object, path: Path, dest: Path) -> Path:
    pairs = [arg.removeprefix("--").split("=", 1) for arg in connection_args(sim)]  # type: ignore[arg-type]
    lines = [f'{name.replace("-", "_")} = "{value}"' for name, value in pairs]
    lines += [f'dest = "{dest}"', 'output = "json"', "retries = 3", "allow_unproven = false", 'poll_interval = "0.05s"']
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_every_setting_can_be_set_in_a_file(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, tmp_path: Path, how: str
) -> None:
    path = str(config_file(simulator(shards=1), tmp_path / "config.toml", dest))
    args, env = (["--config", path], {}) if how == "flag" else ([], {"RESTORE_AGENT_CONFIG": path})
    ended = run_agent(["run", *args], env)
    assert ended.code == 0
    assert len(ended.verdicts) == 2


def test_a_flag_beats_the_environment_and_that_beats_the_file(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, tmp_path: Path
) -> None:
    path = config_file(simulator(shards=1), tmp_path / "config.toml", tmp_path / "by-file")
    by_variable, by_flag = tmp_path / "by-variable", tmp_path / "by-flag"
    env = {"RESTORE_AGENT_DEST": str(by_variable)}
    assert run_agent(["plan", f"--config={path}", f"--dest={by_flag}"], env).events("started")[0]["dest"] == str(
        by_flag
    )
    assert run_agent(["plan", f"--config={path}"], env).events("started")[0]["dest"] == str(by_variable)
    assert run_agent(["plan", f"--config={path}"]).events("started")[0]["dest"] == str(tmp_path / "by-file")


def test_an_unknown_key_in_the_file_is_a_usage_error(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, tmp_path: Path
) -> None:
    path = config_file(simulator(), tmp_path / "config.toml", dest)
    path.write_text(path.read_text() + "\nretrys = 3\n")
    ended = run_agent(["run", f"--config={path}"])
    assert ended.code == 2
    assert "retrys" in ended.out + ended.err


def test_project_id_is_an_alias_of_group_id(simulator: StartSimulator, run_agent: RunAgent, dest: Path) -> None:
    args = [arg.replace("--group-id", "--project-id") for arg in connection_args(simulator())]
    assert run_agent(["plan", *args, f"--dest={dest}"]).code == 0


def test_the_url_may_contain_the_api_path(simulator: StartSimulator, run_agent: RunAgent, dest: Path) -> None:
    sim = simulator()
    args = [*connection_args(sim), f"--url={sim.hello['url']}/api/public/v1.0/"]
    assert run_agent(["plan", *args, f"--dest={dest}"]).code == 0


def test_a_plan_shows_what_would_be_downloaded_and_the_free_space(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    ended = run_agent(["plan", *connection_args(simulator(shards=1)), f"--dest={dest}"])
    assert ended.code == 0
    assert re.search(r"to download: 2 archives, .*; free in DEST: [\d.]+ \wiB", ended.err)


# Debug


def test_debug_shows_a_traceback_without_a_secret(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("forbidden")
    ended = restore(sim, "--debug")
    assert ended.code == 30
    assert "Traceback (most recent call last)" in ended.err
    assert "AccessRefused" in ended.err
    for secret in sim.secrets:
        assert secret not in ended.err + ended.out


def test_without_debug_there_is_no_traceback(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator("forbidden"), "--output=text")
    assert ended.code == 30
    assert "Traceback" not in ended.err + ended.out


def test_a_defect_is_1_with_its_location_and_a_request_for_a_report(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constant of the wrong type stands in for a mistake in the program."""
    monkeypatch.setattr(restore_agent.restore.poller, "PATIENCE", "a minute")
    ended = run_agent(["plan", *connection_args(simulator()), f"--dest={dest}", "-o", "json"])
    assert ended.code == 1
    assert ended.result["exit_code"] == 1
    assert re.match(r"TypeError at \w+\.py:\d+: ", ended.events("error")[0]["message"])
    assert "--debug" in ended.events("error")[0]["hint"]


# Pipes


def test_a_closed_pipe_causes_no_traceback(start_agent: StartAgent) -> None:
    process = start_agent(["simulator", "--list-faults"])
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(10)


def test_a_closed_pipe_does_not_abort_the_only_download(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    """`restore-agent run -o json | something-that-dies`: the archive may be had once, the output any time."""
    sim = simulator("ready-after=0.3", "drip=256K", "max-downloads=1", archive_size=128 << 10)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"])
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(20)
    assert "Traceback" not in errors
    assert (dest / "receipt.json").exists(), f"exit code {process.returncode}, {errors}"
    assert receipt_in(dest)["archives"][0]["verdict"] == "verified"
    assert len(deliveries(sim)) == 1


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("module", ["click", "core.clock", "restore.run"])
def test_a_signal_during_startup_ends_with_a_result(module: str, number: signal.Signals, code: int, dest: Path) -> None:
    program = (
        "import builtins, os, sys\n"
        "load, seen = builtins.__import__, set()\n"
        "def watched(name, *more, **others):\n"
        f"    if name.endswith({module!r}) and name not in seen:\n"
        "        seen.add(name)\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return load(name, *more, **others)\n"
        "builtins.__import__ = watched\n"
        "from restore_agent.__main__ import main\n"
        "main()\n"
    )
    options = ["--url=http://127.0.0.1:1", "--public-key=k", "--group-id=g", "--cluster-id=c", "--batch-id=b"]
    command = [sys.executable, "-c", program, "run", *options, f"--dest={dest}", "-ojson"]
    environment = {**os.environ, "RESTORE_AGENT_PRIVATE_KEY": "secret"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert (ended.returncode, ended.stderr) == (code, "")
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["event"], result["exit_code"]) == ("result", code)


def test_a_run_that_was_started_with_nohup_survives_a_hangup(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("drip=256K", archive_size=256 << 10)
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"]
    process = start_agent(args, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_until(lambda: [part for part in dest.glob("*.part") if part.stat().st_size], "a beginning of the part file")
    process.send_signal(signal.SIGHUP)
    assert finished(process).code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_keeps_state(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path, number: signal.Signals, code: int
) -> None:
    sim = simulator("drip=256K", "range=honour", "max-downloads=2", archive_size=1 << 20)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "-o", "json"])
    wait_until(lambda: [part for part in dest.glob("*.part") if part.stat().st_size], "a beginning of the part file")
    process.send_signal(number)
    ended = finished(process)
    assert ended.code == code
    assert ended.result["exit_code"] == code
    assert ended.events("error")[0]["id"] == "stopped"
    assert not (dest / "receipt.json").exists()
    assert "attempt" in [line.get("fact") for line in journal_in(dest)]
    assert next(dest.glob("*.part")).stat().st_size


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_a_signal_ends_the_short_commands_too(
    simulator: StartSimulator, start_agent: StartAgent, restore: Restore, dest: Path, command: str
) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    sim.set_faults("api-stall=always")
    asked = len(sim.requests)
    args = connection_args(sim, jobs=command == "plan")
    process = start_agent([command, *args, f"--dest={dest}", "-o", "json"])
    wait_until(lambda: len(sim.requests) > asked, "the question")
    process.send_signal(signal.SIGTERM)
    ended = finished(process)
    assert ended.code == 143
    assert ended.result["exit_code"] == 143


def test_a_second_signal_ends_a_process_that_does_not_stop(
    simulator: StartSimulator, start_agent: StartAgent, dest: Path
) -> None:
    sim = simulator("never-ready")
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}"])
    wait_until((dest / ".restore-agent" / "status.json").exists, "the run")
    os.kill(process.pid, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    for _ in range(100):
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGTERM)
    assert process.wait(5) in (143, -signal.SIGTERM)


def test_run_does_not_load_the_simulator() -> None:
    script = (
        "import sys, restore_agent.restore.run, restore_agent.ui.text; print('restore_agent.simulator' in sys.modules)"
    )
    assert python("-c", script).stdout.strip() == "False"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_succeeds_although_its_standard_streams_are_closed(
    closed: str, simulator: StartSimulator, dest: Path
) -> None:
    sim = simulator()
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}"]
    command = f"{shlex.join([sys.executable, '-m', 'restore_agent', *args])} {closed}"
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    assert (dest / "receipt.json").exists()


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["run", "--help"], ["alerts"], ["completion", "bash"], ["man"], ["explain", "23"]],
    ids=" ".join,
)
def test_41_when_the_output_is_the_product_and_cannot_be_written(start_agent: StartAgent, args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = finished(start_agent(args, stdout=full))
    assert ended.code == 41
    assert "cannot write the output: No space left on device [output-unwritable]" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("output", ["text", "json"])
def test_41_when_the_status_cannot_be_written(
    simulator: StartSimulator, restore: Restore, start_agent: StartAgent, dest: Path, output: str
) -> None:
    assert restore(simulator()).code == 0
    with Path("/dev/full").open("w") as full:
        ended = finished(start_agent(["status", dest, "--output", output], stdout=full))
    assert ended.code == 41
    assert "cannot write the output" in ended.err


def test_a_closed_pipe_is_not_an_error_of_the_help(start_agent: StartAgent) -> None:
    end, start = os.pipe()
    os.close(end)
    ended = finished(start_agent(["--help"], stdout=start))
    os.close(start)
    assert (ended.code, ended.err) == (0, "")
