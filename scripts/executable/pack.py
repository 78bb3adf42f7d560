"""Append the zip archive to the program; run by the interpreter of the program, so that its byte code fits.

Arguments: the directory with the files, the program. The archive is sorted and has one time and one mode.
"""

import importlib.util
import marshal
import os
import sys
import zipfile

_HEADER = importlib.util.MAGIC_NUMBER + bytes(12)  # no flags, no time, no size: there is no source to compare with
_VERBATIM = "restore_agent/share/"  # Ansible's modules run on other interpreters


def _names(top):
    for directory, _, files in os.walk(top):
        for name in files:
            yield os.path.relpath(os.path.join(directory, name), top)


def _entry(top, name):
    with open(os.path.join(top, name), "rb") as file:
        data = file.read()
    if not name.endswith(".py") or name.startswith(_VERBATIM):
        return name, data
    return f"{name}c", _HEADER + marshal.dumps(compile(data, name, "exec", dont_inherit=True, optimize=0))


def _main(top, program):
    with zipfile.ZipFile(program, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(_names(top)):
            stored, data = _entry(top, name)
            entry = zipfile.ZipInfo(stored)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


_main(*sys.argv[1:])
