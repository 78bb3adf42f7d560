"""Import every module of the program from its archive alone; run by its interpreter. Argument: the program."""

import importlib
import sys
import zipfile

_PARTS = ("isal.isal_zlib", "prometheus_client", "jinja2", "_system_calls", "ssl", "asyncio")


def _main(program):
    sys.path[:] = [program]
    from _start import PackageModules

    sys.meta_path.append(PackageModules)
    with zipfile.ZipFile(program) as archive:
        names = [name.removesuffix(".pyc") for name in archive.namelist() if name.endswith(".pyc")]
    ours = [name.replace("/", ".").removesuffix(".__init__") for name in names if name.startswith("restore_agent/")]
    for name in (*ours, *_PARTS):
        importlib.import_module(name)


_main(sys.argv[1])
