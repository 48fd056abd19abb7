"""Parts of a pipeline version beside its IR: source bundle, Git commit and environment.

    from penstock import bundle

    packed = bundle.pack(root)             # the folder that is first on the module path (`bundle.project_of(file)`)
    packed.digest, packed.data             # SHA-256 of the tar, and the tar; `packed.write(path)` for a file
    packed.warnings                        # excluded files, with reasons
    bundle.git_info(root)                  # commands.GitInfo as a dictionary, or None
    bundle.ProjectModules(root).closure(module).digest(packed.digest)      # SHA-256 of the modules that it imports
    bundle.environment_info()              # commands.EnvironmentInfo as a dictionary
    bundle.interpreter_info()              # commands.InterpreterHint as a dictionary

All of it takes some ten milliseconds for a usual project; nothing of it imports the user's code.
"""

from penstock.bundle.environment import environment_info, interpreter_info
from penstock.bundle.git import git_info
from penstock.bundle.imports import ProjectModules
from penstock.bundle.local_libraries import find as local_libraries
from penstock.bundle.local_libraries import hiding, hiding_in
from penstock.bundle.source import Bundle, pack, project_of, root_of

__all__ = [
    "Bundle",
    "ProjectModules",
    "environment_info",
    "git_info",
    "hiding",
    "hiding_in",
    "interpreter_info",
    "local_libraries",
    "pack",
    "project_of",
    "root_of",
]
