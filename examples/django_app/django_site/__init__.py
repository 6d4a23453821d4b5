"""An ordinary Django project, as small as one with an admin and static files can be. It knows nothing of subpool."""
