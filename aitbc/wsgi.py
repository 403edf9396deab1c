"""WSGI entry point: the web process."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aitbc.settings.local")

from aitbc.celery import app as celery_app
from aitbc.core import checks

application = get_wsgi_application()
checks.require()
__all__ = ["application", "celery_app"]
