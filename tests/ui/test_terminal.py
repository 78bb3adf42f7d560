"""Output on a terminal: progress bars, folded lines, colors."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    StartSimulator,
    connection_args,
)
from support.consoles import (
    Terminal,
    long_record,
    on_terminal,
    progress,
    receipt,
    screen_of,
    shown_on,
    text_console,
)

from restore_agent.core.events import (
    Notice,
    Progress,
    RunFinished,
)
from restore_agent.core.receipt import Verdict
from restore_agent.ui.terminal import terminal_size
from restore_agent.ui.wording import folded

# A terminal of 80 columns and 24 lines


def test_a_terminal_shows_a_bar_per_archive_that_fits_and_is_removed(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "ready-after=0.4@1", shards=1, archive_size=512 << 10)
    terminal = on_terminal(sim, tmp_path / "r")
    bars = [line for line in terminal.screens if "%|" in line]
    assert len({bar.split()[0] for bar in bars}) == 2
    assert any("KiB/s" in bar for bar in bars)
    assert any("waiting for" in line for line in terminal.screens)
    assert max(len(line) for line in terminal.screens if str(tmp_path) not in line) <= 80
    table = terminal.screens[terminal.screens.index(f"          In {tmp_path / 'r'}:") :]
    assert not any("%|" in line for line in table), "nothing of the bars is left beside the table"
    assert "\x1b[32mverified" in terminal.shown
    assert not re.search("[\x00-\x06\x0b-\x0c\x0e-\x1a]", terminal.shown)


def test_a_bar_of_unknown_size_shows_bytes_and_rate(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "framing=chunked", archive_size=512 << 10)
    terminal = on_terminal(sim, tmp_path / "r")
    bars = [line for line in terminal.screens if "size unknown" in line]
    assert any("KiB/s" in bar for bar in bars)
    assert max(map(len, bars)) <= 80


def test_no_color_is_honoured_on_a_terminal(simulator: StartSimulator, tmp_path: Path) -> None:
    terminal = on_terminal(simulator(), tmp_path / "r", {"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.shown)


def test_json_on_a_terminal_is_still_json(simulator: StartSimulator, tmp_path: Path) -> None:
    terminal = on_terminal(simulator(), tmp_path / "r", None, "--output=json")
    assert all(json.loads(line) for line in terminal.shown.splitlines())


def test_a_wrapped_line_breaks_a_path_only_between_names_if_they_fit() -> None:
    path = f"/backup/{'restore/' * 10}"
    line = f"10:00:00 archives go to {path}"
    assert folded(line, 77) == ["10:00:00 archives go to", f"         {path}"]
    assert max(map(len, folded(line, 37))) == 37


@pytest.mark.parametrize(
    ("columns", "lines", "room"), [(80, 24, (77, 24)), (0, 0, (77, 24)), (132, 50, (129, 50)), (5, 2, (20, 2))]
)
def test_a_terminal_of_unknown_size_counts_as_80_by_24(columns: int, lines: int, room: tuple[int, int]) -> None:
    main, side = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with os.fdopen(side, "w") as stream:
        assert terminal_size(stream) == room
    os.close(main)


def test_the_waiting_line_is_removed_once_no_archive_waits() -> None:
    console, _, err = text_console(progress="bar")
    console.report(Progress((progress("waiting"),)))
    assert "waiting for 1 job" in err.getvalue()
    console.report(Progress((progress("downloading"),)))
    before = len(err.getvalue())
    console.report(Notice("info", "a line above the bars, after which they are drawn again"))
    assert "waiting for" not in err.getvalue()[before:]
    console.close()


def test_hashing_and_many_archives_have_bars() -> None:
    console, out, err = text_console(progress="bar")
    many = tuple(progress("downloading", job_id=str(number)) for number in range(40))
    console.report(Progress(many))
    console.report(Progress((progress("hashing", bytes=1 << 20, file_name="{odd}.tar.gz"), progress("waiting"))))
    console.report(Progress((progress("downloading", bytes_per_second=0), progress("waiting"))))
    console.report(Notice("warning", "a line above the bars " * 10))
    console.report(Progress((progress("verified"),)))
    console.report(RunFinished(receipt(long_record(Verdict.VERIFIED))))
    assert "waiting for the published hash" in err.getvalue()
    assert "{odd}.tar.gz" in err.getvalue()
    assert err.getvalue().count("0.0%") + err.getvalue().count(" 50%") >= 12
    assert "verified" in out.getvalue()


def test_the_row_of_a_finished_archive_does_not_stay_blank_between_other_rows() -> None:
    console, _, err = text_console(progress="bar")
    first, second, third = (progress("downloading", job_id=name, file_name=f"{name}.tar.gz") for name in "abc")
    console.report(Progress((first, second, third, progress("waiting"))))
    assert [line.split()[0] for line in shown_on(err)] == ["waiting", "a.tar.gz", "b.tar.gz", "c.tar.gz", "total:"]
    console.report(Progress((replace(first, state="verified"), second, third)))
    assert [line.split()[0] for line in shown_on(err)] == ["b.tar.gz", "c.tar.gz", "total:"]
    console.report(Notice("info", "a line above the bars"))
    assert [line.split()[0] for line in shown_on(err)[1:]] == ["b.tar.gz", "c.tar.gz", "total:"]
    console.close()
    assert [line[9:] for line in shown_on(err)] == ["a line above the bars"]


def test_downloads_are_above_archives_that_await_their_hash_and_the_rest_is_counted() -> None:
    console, _, err = text_console(progress="bar")
    hashing = tuple(progress("hashing", job_id=f"h{number}", file_name=f"h{number}") for number in range(12))
    console.report(Progress((*hashing, progress("downloading", job_id="d", file_name="d"))))
    shown = shown_on(err)
    assert [line.split()[0] for line in shown[:2]] == ["d", "h0"]
    total = "total: 0 of 13 finished, 50% (6.5 MiB of 13.0 MiB), 256.0 KiB/s, 26s left"
    assert shown[12:] == ["and 1 more in progress", total]
    console.close()


def test_an_archive_that_is_only_unpacked_shows_its_share() -> None:
    console, _, err = text_console(progress="bar")
    console.report(Progress((progress("unpacking", bytes=1 << 20, unpacked_bytes=1 << 18),)))
    assert shown_on(err)[0].endswith("1.0 MiB  unpacking 25%")
    console.close()


def test_a_transfer_without_a_byte_does_not_show_its_size_as_unknown() -> None:
    console, _, err = text_console(progress="bar")
    console.report(Progress((progress("downloading", bytes=0, total_bytes=None),)))
    assert "no byte yet" in shown_on(err)[0]
    console.report(Progress((progress("downloading", total_bytes=None),)))
    assert "size unknown" in shown_on(err)[0]
    console.close()


def test_on_40_columns_every_row_fits(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=512K", "ready-after=0.4@1", shards=1, archive_size=512 << 10)
    terminal = Terminal(["run", *connection_args(sim), *QUICK, f"--dest={tmp_path / 'r'}"], {}, columns=40)
    assert terminal.finish() == 0, terminal.shown
    rows = [line for line in terminal.screens if "% " in line or "waiting for 1 job" in line]
    assert any(re.search(r"\d% +\d.*KiB/s +\d+s", row) for row in rows)
    assert max(map(len, rows)) < 40


def test_control_c_removes_the_bars(simulator: StartSimulator, tmp_path: Path) -> None:
    sim = simulator("drip=64K", shards=1, archive_size=512 << 10)
    terminal = Terminal(["run", *connection_args(sim), *QUICK, f"--dest={tmp_path / 'r'}"], {})
    terminal.press(b"\x03", once="%|")
    assert terminal.finish() == 130
    screen = screen_of(terminal.shown, columns=80)
    assert "^C" in terminal.shown
    assert not [line for line in screen if "^" in line or "%|" in line or not line]
    assert screen[-1] == "Next: Run the command again. It keeps the files on disk and resumes."
