"""The native part of the executable: modules of the interpreter compiled from source, everything linked statically."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .debian import PYTHON

PROGRAM = Path(__file__).with_name("program.c")

# Debian's interpreter has most modules built in. These are shared libraries there: source file by module.
MODULES = {
    "_asyncio": "_asynciomodule",
    "_contextvars": "_contextvarsmodule",
    "_hashlib": "_hashopenssl",
    "_json": "_json",
    "_queue": "_queuemodule",
    "_ssl": "_ssl",
    "_typing": "_typingmodule",
    "mmap": "mmapmodule",
    "resource": "resource",
    "termios": "termios",
}

# Modules of packages: source file below the unpacked source archives.
PACKAGE_MODULES = {
    "isal._isal": "isal/src/isal/_isalmodule.c",
    "isal.igzip_lib": "isal/src/isal/igzip_libmodule.c",
    "isal.isal_zlib": "isal/src/isal/isal_zlibmodule.c",
}

LIBRARIES = (f"-l{PYTHON}", "-lssl", "-lcrypto", "-lexpat", "-lz", "-lm")

_FLAGS = ("-O2", "-g0", "-fwrapv", "-DNDEBUG", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wformat")
_LINK = ("-static", "-no-pie", "-s", "-Wl,--build-id=none", "-Wl,-z,relro,-z,now,-z,noexecstack")


@dataclass(frozen=True)
class Native:
    """A build in `directory`: `root` has Debian's libraries, `python` and `sources` (of packages) are source code."""

    directory: Path
    root: Path
    python: Path
    sources: Path

    def build(self) -> tuple[Path, Path]:
        """Return the program without code, and the interpreter that compiles the code."""
        objects = self.directory / "objects"
        objects.mkdir()
        self._write_list_of_modules()
        isa_l = self._isa_l()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            modules = [*pool.map(lambda job: self._compile(*job), self._jobs())]
        program = self._link(self._compile(PROGRAM, "program"), modules, isa_l, "program")
        interpreter = self._compile(PROGRAM, "interpreter", "-DINTERPRETER")
        return program, self._link(interpreter, modules, isa_l, "interpreter")

    def _write_list_of_modules(self) -> None:
        lines = [f'MODULE("{name}", PyInit_{name.rpartition(".")[2]})' for name in (*MODULES, *PACKAGE_MODULES)]
        (self.directory / "modules.h").write_text("\n".join(lines) + "\n")

    def _jobs(self) -> list[tuple[Path, str, str]]:
        source = self.python / "Modules"
        jobs = [(source / f"{file}.c", name, "-DPy_BUILD_CORE_MODULE") for name, file in MODULES.items()]
        return jobs + [(self.sources / file, name, "-DPACKAGE") for name, file in PACKAGE_MODULES.items()]

    def _compile(self, source: Path, name: str, *more: str) -> Path:
        headers = self.root / "usr/include" / PYTHON
        places = [self.directory, self.directory / "include", headers, headers / "internal", self.python / "Modules"]
        target = self.directory / "objects" / f"{name}.o"
        command = ["gcc", f"--sysroot={self.root}", *_FLAGS, *more, f"-ffile-prefix-map={self.directory}=."]
        self._run(*command, *(f"-I{place}" for place in places), "-c", source, "-o", target)
        return target

    def _isa_l(self) -> Path:
        """Build the part of ISA-L that inflates and deflates, with the headers in the place that the modules expect."""
        source = self.sources / "isal/src/isal/isa-l"
        flags = "CFLAGS_aarch64" if os.uname().machine == "aarch64" else "CFLAGS_"
        jobs = f"-j{os.cpu_count() or 1}"
        command = ["make", jobs, "-f", "Makefile.unx", "units=igzip", "isa-l.h", "bin/isa-l.a", f"{flags}=-g0"]
        path = f"{self.root}/usr/bin:{os.environ['PATH']}"  # nasm
        self._run(*command, cwd=source, env={**os.environ, "PATH": path})
        shutil.copytree(source / "include", self.directory / "include/isa-l")
        shutil.copy(source / "isa-l.h", self.directory / "include/isa-l.h")
        return source / "bin/isa-l.a"

    def _link(self, main: Path, modules: list[Path], isa_l: Path, name: str) -> Path:
        target = self.directory / name
        command = ["gcc", f"--sysroot={self.root}", *_LINK, main, *modules, "-o", target]
        self._run(*command, "-Wl,--start-group", isa_l, *LIBRARIES, "-Wl,--end-group")
        return target

    def _run(self, *command: object, **options: object) -> None:
        """Run a command; show its output only if it fails, because static linking warns about name services."""
        words = [str(word) for word in command]
        done = subprocess.run(words, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload]
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            raise SystemExit(f"failed: {' '.join(words)}")


def compiler() -> str:
    """Return the name and version of the compiler."""
    return subprocess.run(["gcc", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
