"""A ninja API and a DRF view that raise what a test asks for, behind the real middleware."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import Schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aitbc.core import http
from aitbc.core.auth import ApiKey, PartyKey, caller
from aitbc.core.schema import MachineApi

RAISED: dict[str, Exception] = {}


class Body(Schema):
    amount: int
    names: list[str] = []


class BodySerializer(serializers.Serializer[Any]):
    amount = serializers.IntegerField()
    names = serializers.ListField(child=serializers.CharField(), default=list)


api = MachineApi(urls_namespace="core-tests", docs_url=None)


@api.exception_handler(Exception)
def on_error(request: HttpRequest, error: Exception) -> HttpResponse:
    known = http.as_domain_error(error)
    return http.problem_response(request, known) if known else http.unexpected(request, error)


@api.get("/raise/{name}")
def raise_in_ninja(request: HttpRequest, name: str) -> None:
    raise RAISED[name]


@api.post("/body")
def read_in_ninja(request: HttpRequest, body: Body) -> dict[str, Any]:
    return body.dict()


@api.get("/closed", auth=ApiKey("jobs:read"))
def closed(request: HttpRequest) -> dict[str, Any]:
    return {"user": str(caller(request).user_id)}


@api.get("/for-parties", auth=PartyKey("jobs:read"))
def for_parties(request: HttpRequest) -> dict[str, Any]:
    return {"user": str(caller(request).user_id)}


class RaiseInDrf(APIView):
    permission_classes = [AllowAny]

    def get(self, request: Request, name: str) -> Response:
        raise RAISED[name]


class ReadInDrf(APIView):
    permission_classes = [AllowAny]

    def post(self, request: Request) -> Response:
        serializer = BodySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(serializer.validated_data)


class Closed(APIView):
    def get(self, request: Request) -> Response:
        return Response({})


def plain(request: HttpRequest, name: str) -> HttpResponse:
    raise RAISED[name]


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


urlpatterns = [
    path("v1/", api.urls),
    path("v1/echo", echo),
    path("v1/artifacts/echo", echo),
    path("api/raise/<str:name>", RaiseInDrf.as_view()),
    path("api/body", ReadInDrf.as_view()),
    path("api/closed", Closed.as_view()),
    path("v1/plain/<str:name>", plain),
    path("page/<str:name>", plain),
]
handler400 = http.bad_request
handler404 = http.not_found
handler500 = http.server_error
