"""What to type where there is no PostgreSQL, or its Python lacks what the engine `onnx` imports."""

from __future__ import annotations

import platform
import shlex
import sys

__all__ = ["SERVER_PACKAGES", "install_remedy", "server_packages_remedy"]

SERVER_PACKAGES = ("numpy", "onnxruntime")
"""What the engine `onnx` imports inside the server."""


def server_packages_remedy(
    python_version: str,
    *,
    server_major: int | None = None,
    directory: str = "/opt/dbscore/python",
    requirements: tuple[str, ...] = SERVER_PACKAGES,
) -> str:
    """Return the commands that give a PostgreSQL server numpy and onnxruntime.

    Args:
        python_version: The Python of the server's PL/Python, such as "3.11"; it is the distribution's, not
            the client's.
        server_major: PostgreSQL's major version, put in the path of Debian's configuration; None leaves a
            placeholder there.
        directory: Where the packages go on the server's machine.
        requirements: What to install, as pip takes it.

    Returns:
        Lines of text: what to run on the server's machine, as root.
    """
    major = "VERSION" if server_major is None else str(server_major)
    path = shlex.quote(directory)
    install = " ".join(shlex.quote(one) for one in requirements)
    return (
        "On the server's machine, run:\n"
        f"  python3 -m pip install --target {path} --only-binary=:all: --python-version {python_version} "
        f"{install}\n"
        f"  chmod -R a+rX {path}\n"
        "and set PYTHONPATH for the server. On Debian and Ubuntu:\n"
        f"  echo \"PYTHONPATH = '{directory}'\" >> /etc/postgresql/{major}/main/environment\n"
        f"  systemctl restart postgresql@{major}-main\n"
        "Elsewhere, put PYTHONPATH in the environment that starts postgres (systemctl edit: "
        f'Environment="PYTHONPATH={directory}") and restart it.'
    )


def install_remedy(*, plpython_package: str | None = None) -> str:
    """Return what installs a PostgreSQL that dbscore can start on this operating system.

    Args:
        plpython_package: The PL/Python package, where its name has a version; None leaves a placeholder.
    """
    everywhere = (
        "Or set DBSCORE_URL to a PostgreSQL with PL/Python that runs already.\n"
        "Or, for the engine sql only: pip install 'dbscore[embedded]'"
    )
    family = _family()
    if family & {"debian", "ubuntu"}:
        package = plpython_package or "postgresql-plpython3-VERSION"
        return f"Run: sudo apt-get install postgresql {package}\n{everywhere}"
    if family & {"fedora", "rhel", "centos"}:
        return f"Run: sudo dnf install postgresql-server postgresql-plpython3\n{everywhere}"
    if family & {"suse", "opensuse"}:
        return f"Run: sudo zypper install postgresql-server postgresql-plpython\n{everywhere}"
    if family & {"arch"}:
        return f"Run: sudo pacman -S postgresql\n{everywhere}"
    if family & {"darwin"}:
        # Homebrew builds PostgreSQL without PL/Python
        return f"Install PostgreSQL with PL/Python (EDB's installer has it; Homebrew's has not).\n{everywhere}"
    return f"Install PostgreSQL 14 or later with PL/Python.\n{everywhere}"


def _family() -> set[str]:
    """Return the operating system's name and those it says it is like."""
    if sys.platform == "darwin":
        return {"darwin"}
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return set()
    return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
