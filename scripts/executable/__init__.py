"""Build of the executable: one static ELF program with the interpreter, the libraries, and all Python code inside.

    debian       interpreter and libraries as Debian built them, and the source of some modules of the interpreter
    native       compiles program.c and these modules, and links everything statically
    bundle       byte code, documents, and licenses, as a zip archive at the end of the program
    bill         the CycloneDX list of contents

A static program needs no library of the host, and it is not unpacked when it starts: there is no second process, and no
directory that could be full, read-only, or left behind.
"""
