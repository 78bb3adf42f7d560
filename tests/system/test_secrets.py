"""No secret reaches an output, a log, a traceback or a file, in any form, whatever the end."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from support.agents import (
    QUICK,
    Restore,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    finished,
    wait_until,
)

from restore_agent.core.redaction import Redactor
from restore_agent.simulator import Simulator

_DIGEST = re.compile(r'response="([0-9a-f]+)"')


def secrets_of(sim: Simulator) -> set[str]:
    """All that the simulator gave out, and every digest response that it was sent."""
    found = set(sim.secrets)
    for job in sim.jobs:
        found |= {job.token, job.bearer, f"/{job.token}/"}
    for request in sim.requests:
        found |= set(_DIGEST.findall(request.headers.get("authorization", "")))
    assert len(found) > 3
    return found


def forms_of(secret: str) -> Iterator[bytes]:
    """The ways in which a secret may slip through."""
    raw = secret.encode()
    forms = {raw, quote(secret, safe="").encode(), quote(secret).encode(), quote_plus(secret).encode()}
    encoded = base64.b64encode(raw)
    forms |= {encoded, encoded.rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"="), raw.rstrip(b"=")}
    with suppress(ValueError):  # not every secret is base64 itself
        forms.add(base64.b64decode(secret, validate=True))
    yield from forms - {b""}


def assert_kept(sim: Simulator, ended: Result, *places: Path) -> None:
    """No secret in what was said, nor in any name or content of a file in `places`."""
    texts = {"stdout": ended.out.encode(), "stderr": ended.err.encode()}
    for place in places:
        for path in place.rglob("*"):
            texts[str(path.name)] = path.name.encode()
            if path.is_file():
                texts[str(path)] = path.read_bytes()
    for secret in secrets_of(sim):
        for form in forms_of(secret):
            for where, text in texts.items():
                assert form not in text, f"{where} holds {form!r}"


def test_no_token_of_a_validator_or_a_redirect_is_in_the_journal() -> None:
    redactor = Redactor()
    redactor.learn_url("https://om/backup/restore/v2/pull/5fc4f5a8b2e4a1000155b6aa/dG9rZW4tb2YtdGhlLXVybA==/a.tar.gz")
    redactor.learn_url("https://store/signed/a.tar.gz?signature=0123456789abcdef")
    assert redactor.clean('"dG9rZW4tb2YtdGhlLXVybA=="') == '"[hidden]"'
    assert "0123456789abcdef" not in redactor.clean("HTTP/1.1 signature=0123456789abcdef")
    assert redactor.clean("5fc4f5a8b2e4a1000155b6aa /backup/restore") == "5fc4f5a8b2e4a1000155b6aa /backup/restore"


BATCH: list[tuple[str, list[str], list[str], int]] = [
    ("success", [], [], 0),
    ("success with a header", ["url-v2=only"], [], 0),
    ("bare token in the header", ["url-v2=only", "no-bearer-field"], [], 0),
    ("whole value in the header", ["url-v2=both", "bearer-in-value"], [], 0),
    ("resumed", ["range=honour", "cut=50%", "max-downloads=2"], [], 0),
    ("cut", ["cut=50%"], [], 23),
    ("refused", ["refuse=403x9", "max-downloads=9"], ["--retries=1"], 25),
    ("not an archive", ["html-body", "max-downloads=9"], ["--retries=1"], 25),
    ("mismatch", ["hash=wrong"], [], 11),
    ("unproven", ["hash=never"], ["--hash-timeout=0.1s"], 10),
    ("redirected", ["redirect=2"], [], 0),
    ("redirected elsewhere with a header", ["url-v2=only", "redirect-other-origin"], [], 0),
    ("redirected for ever", ["redirect-loop", "max-downloads=9"], ["--retries=1"], 25),
    ("url renewed", ["renew-url=0.5", "drip=128K", "cut=50%x2", "max-downloads=9"], ["--retries=9"], 0),
    ("url unusable", ['job-field=delivery.url:"https://user:pass-word-1@elsewhere/archive.tar.gz"'], [], 25),
    ("token in the name", ["name=archive?token.tar.gz"], [], 0),
    ("unauthorized", ["unauthorized"], [], 30),
    ("forbidden", ["forbidden"], [], 30),
    ("api redirects", ["api-redirect"], [], 32),
    ("hostile texts", ["hostile-text", "cut=50%"], [], 23),
    ("stale nonces", ["stale-nonce=1"], [], 0),
]


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(("faults", "options", "code"), [row[1:] for row in BATCH], ids=[row[0] for row in BATCH])
def test_no_outcome_of_a_run_shows_a_secret(
    simulator: StartSimulator,
    restore: Restore,
    dest: Path,
    faults: list[str],
    options: list[str],
    code: int,
    output: str,
) -> None:
    sim = simulator(*faults)
    ended = restore(sim, "--debug", f"--output={output}", *options)
    assert ended.code == code, ended.out + ended.err
    assert_kept(sim, ended, dest)
    assert "pass-word-1" not in ended.out + ended.err


@pytest.mark.parametrize("fault", ["wrong-host", "expired-cert", "client-cert"])
def test_tls_failures_show_no_secret(simulator: StartSimulator, run_agent: RunAgent, dest: Path, fault: str) -> None:
    sim = simulator(fault, tls=True)
    ended = run_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--debug"])
    assert ended.code == 31
    assert_kept(sim, ended, dest)


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_plan_and_verify_show_no_secret(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path, command: str
) -> None:
    sim = simulator("url-v2", "max-downloads=2", "hash=never")
    assert restore(sim, "--hash-timeout=0.1s").code == 10
    args = connection_args(sim, jobs=command == "plan")
    for output in ("text", "json"):
        ended = run_agent([command, *args, f"--dest={dest}", f"--output={output}", "--debug"])
        assert ended.code in (0, 10)
        assert_kept(sim, ended, dest)


def test_status_shows_no_secret(simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    for output in ("text", "json"):
        assert_kept(sim, run_agent(["status", f"--dest={dest}", f"--output={output}"]), dest)


def test_a_killed_run_leaves_no_secret_on_disk(simulator: StartSimulator, start_agent: StartAgent, dest: Path) -> None:
    sim = simulator("url-v2", "drip=256K", archive_size=1 << 20)
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--debug"])
    wait_until(lambda: [part for part in dest.glob("*.part") if part.stat().st_size], "a beginning of the part file")
    process.kill()
    assert_kept(sim, finished(process), dest)


def test_the_key_in_the_environment_is_hidden_when_an_error_repeats_it(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator()
    key = sim.hello["private_key"]
    args = [arg for arg in connection_args(sim) if not arg.startswith("--private-key-file")]
    ended = run_agent(["run", *args, f"--dest={dest}", f"--poll-interval={key}"], {"RESTORE_AGENT_PRIVATE_KEY": key})
    assert ended.code == 2
    assert key not in ended.out + ended.err


def test_a_url_with_credentials_is_refused_without_repeating_them(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator(), "--url=https://operator:pass-word-1@om.example.net", "--output=text")
    assert ended.code == 2
    assert "--url" in ended.err
    assert "pass-word-1" not in ended.out + ended.err


def test_credentials_of_the_api_are_never_sent_to_a_delivery_url(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("url-v2=both", "redirect-other-origin", shards=1)
    assert restore(sim).code == 0
    for request in sim.requests:
        sent = request.headers.get("authorization", "")
        if request.kind == "delivery":
            assert "Digest" not in sent
            assert sim.hello["public_key"] not in str(request.headers)
        else:
            assert "Bearer" not in sent


def test_the_bearer_token_is_sent_to_no_other_origin(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("url-v2=only", "redirect-other-origin")
    assert restore(sim).code == 0
    first, second = [request for request in sim.requests if request.kind == "delivery"]
    assert first.headers["authorization"] == f"Bearer {sim.job(0).bearer}"
    assert "authorization" not in second.headers
