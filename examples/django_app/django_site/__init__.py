"""An ordinary Django project, as small as one can be. It knows nothing of subpool."""
