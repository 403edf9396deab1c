from django.urls import path

from aitbc.accounts import views

urlpatterns = [
    path("me", views.Me.as_view()),
    path("keys", views.Keys.as_view()),
    path("keys/<uuid:pk>", views.KeyDetail.as_view()),
    path("parameters", views.Parameters.as_view()),
]
