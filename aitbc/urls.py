"""Composition root of the web: the only URL configuration."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from aitbc import console
from aitbc.api import api
from aitbc.core import health, http

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/fleet/", admin.site.admin_view(console.fleet_map), name="fleet"),
    path("admin/", admin.site.urls),
    path("v1/", api.urls),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/accounts/", include("aitbc.accounts.urls")),
    path("health/live", health.live),
    path("health/ready", health.ready),
]
handler400 = http.bad_request
handler404 = http.not_found
handler500 = http.server_error
