"""`python -m pard`: the program `pard` of this environment."""

import os
import pathlib
import subprocess
import sys
import sysconfig


def find():
    """The program, which pip puts where it puts scripts: in the environment, for the user, or beside `--target`."""
    name = "pard.exe" if os.name == "nt" else "pard"
    user = "osx_framework_user" if sys.platform == "darwin" and sys._framework else f"{os.name}_user"
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user)]
    folders.append(pathlib.Path(__file__).resolve().parent.parent / "bin")
    for folder in folders:
        program = pathlib.Path(folder) / name
        if program.is_file():
            return str(program)
    sys.exit(f"the program {name} is not where pip puts scripts: {', '.join(map(str, folders))}")


if __name__ == "__main__":
    arguments = [find(), *sys.argv[1:]]
    if os.name == "nt":
        sys.exit(subprocess.run(arguments).returncode)
    os.execv(arguments[0], arguments)
