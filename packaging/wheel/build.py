"""Builds the program and the library of the wheel, and names the platform that it is for.

PARD_TREE is a folder with bin/ and lib/ that `packaging/package.sh` has filled already.
"""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAM = "pard.exe" if os.name == "nt" else "pard"
LIBRARY = {"darwin": "libpard.dylib", "win32": "pard.dll"}.get(sys.platform, "libpard.so")


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        tree = os.environ.get("PARD_TREE")
        if tree:
            program, library = (pathlib.Path(tree, *path).resolve() for path in [("bin", PROGRAM), ("lib", LIBRARY)])
            if os.name != "nt":
                os.chmod(program, 0o755)
        else:
            program = self.cargo("pard-cli", "build", PROGRAM)
            library = self.cargo("pard-c", "rustc", LIBRARY, "--crate-type", "cdylib")
        build_data["shared_scripts"][str(program)] = PROGRAM
        build_data["force_include"][str(library)] = f"pard/{LIBRARY}"
        build_data["force_include"][self.licences()] = "pard/THIRD-PARTY.txt"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag([program, library])}"

    def licences(self):
        """A file with the licences of what is linked in."""
        rustc = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        target = re.search("^host: (.*)$", rustc, re.MULTILINE)[1]
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "THIRD-PARTY.txt")
        with open(path, "wb") as file:
            command = [sys.executable, "packaging/dependencies.py", "licences", target]
            subprocess.run(command, cwd=self.root, check=True, stdout=file)
        return path

    def finalize(self, version, build_data, artifact_path):
        self.folder.cleanup()

    def cargo(self, package, command, file, *options):
        """Builds a package, and gives the path of its `file`."""
        arguments = ["cargo", command, "--locked", "--profile", "dist", "--package", package, *options]
        arguments += ["--message-format", "json-render-diagnostics"]
        done = subprocess.run(arguments, cwd=self.root, check=True, stdout=subprocess.PIPE)
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        files = [path for message in messages for path in message.get("filenames", [])]
        return next(pathlib.Path(path) for path in reversed(files) if pathlib.Path(path).name == file)


def platform_tag(files):
    if sys.platform == "linux":
        # The newest symbol of glibc that they ask for says how old it may be.
        needed = [int(minor) for file in files for minor in re.findall(rb"GLIBC_2\.(\d+)", file.read_bytes())]
        return f"manylinux_2_{max(needed)}_{platform.machine()}"
    if sys.platform == "darwin":
        oldest = os.environ.get("MACOSX_DEPLOYMENT_TARGET", "11.0").replace(".", "_")
        return f"macosx_{oldest}_{platform.machine()}"
    return re.sub("[-.]", "_", sysconfig.get_platform())
