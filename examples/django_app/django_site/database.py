"""Makes the database ready when the project starts: nobody has to run a command before the first request."""

from __future__ import annotations

import fcntl
import os

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor


def prepare() -> None:
    """Run the migrations and make the first user, where that was not done. One worker does it, the others wait.

    Raises PermissionError if the folder is somebody else's.
    """
    folder = settings.DATA
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            executor = MigrationExecutor(connection)
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                call_command("migrate", interactive=False, verbosity=0)
            users = get_user_model().objects
            if not users.exists():
                users.create_superuser("admin", password=settings.ADMIN_PASSWORD)
        finally:
            connections.close_all()
