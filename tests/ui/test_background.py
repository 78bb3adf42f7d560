"""The threads that write the output."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from restore_agent.ui.background import background, in_order


def test_results_and_log_lines_keep_their_order_on_one_terminal() -> None:
    """Bars are removed on stderr before the results are printed on stdout; both are often the same terminal."""
    reader, writer = os.pipe()
    received = bytearray()

    def read() -> None:
        while data := os.read(reader, 65536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    lines = [f"{number}\n" for number in range(500)]
    with open(writer, "w") as stdout, open(os.dup(writer), "w") as stderr:
        out, err = in_order(background(stdout), background(stderr))
        for number, line in enumerate(lines):
            (out, err)[number % 2].write(line)
        assert out.drain(10)  # type: ignore[attr-defined]
        assert err.drain(10)  # type: ignore[attr-defined]
    thread.join()
    os.close(reader)
    assert received.decode() == "".join(lines)


def test_a_log_in_another_file_stays_there(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stdout, (tmp_path / "err").open("w") as stderr:
        out, err = in_order(background(stdout), background(stderr))
        out.write("result\n")
        err.write("log\n")
        assert out.drain(10)  # type: ignore[attr-defined]
        assert err.drain(10)  # type: ignore[attr-defined]
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("result\n", "log\n")
