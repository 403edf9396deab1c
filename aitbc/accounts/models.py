"""Users, their API keys, and the governed parameters of the platform."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower

from aitbc.core.fields import HashField
from aitbc.core.ids import uuid7


class Role(models.TextChoices):
    CLIENT = "client", "Client: buys compute"
    MINER = "miner", "Miner: sells compute"
    OPERATOR = "operator", "Operator: runs the platform"


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").lower())

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, role=Role.OPERATOR, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    role = models.CharField(max_length=10, choices=Role, default=Role.CLIENT)
    is_staff = models.BooleanField("may enter the console", default=False)
    is_active = models.BooleanField(default=True, help_text="An inactive user's keys stop working at once.")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = UserManager()
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(email=Lower("email")), name="user_email_lower_case")]
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.email


class ApiKey(models.Model):
    """`ait_<prefix>_<secret>`; only the secret's SHA-256 is kept (it has 256 random bits, so no salt)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    secret_hash = models.BinaryField(max_length=32, editable=False)
    scopes = ArrayField(models.CharField(max_length=40))
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        ordering = ("-id",)
        constraints = [models.CheckConstraint(condition=models.Q(scopes__len__gt=0), name="apikey_has_scopes")]

    def __str__(self) -> str:
        return f"ait_{self.prefix}_…"


class Parameter(models.Model):
    """A governed whole number with bounds. Changes go through `parameters.change`, which keeps history."""

    name = models.CharField(primary_key=True, max_length=60)
    value = models.DecimalField(max_digits=38, decimal_places=0)
    minimum = models.DecimalField(max_digits=38, decimal_places=0)
    maximum = models.DecimalField(max_digits=38, decimal_places=0)
    unit = models.CharField(max_length=30)
    description = models.CharField(max_length=300)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(value__gte=models.F("minimum"), value__lte=models.F("maximum")),
                name="parameter_within_bounds",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ParameterChange(models.Model):
    parameter = models.ForeignKey(Parameter, on_delete=models.PROTECT, related_name="changes")
    old_value = models.DecimalField(max_digits=38, decimal_places=0)
    new_value = models.DecimalField(max_digits=38, decimal_places=0)
    changed_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT)
    changed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-changed_at",)

    def __str__(self) -> str:
        return f"{self.parameter_id}: {self.old_value} -> {self.new_value}"


class AuditEvent(models.Model):
    """Who did what to what. Written by the database alone, in the same transaction (`sql/audit.sql`)."""

    number = models.BigIntegerField(primary_key=True, help_text="From 1, without gaps.")
    at = models.DateTimeField()
    xact = models.BigIntegerField(db_index=True)
    actor = models.CharField(
        max_length=60, db_index=True, help_text="A user's id, `key:` and a prefix, or the platform."
    )
    action = models.CharField(max_length=40, db_index=True)
    subject = models.CharField(max_length=120, db_index=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    request_id = models.CharField(max_length=64)
    address = models.CharField(max_length=45)
    head = HashField(help_text="SHA-256 over the head before and this row; covered by the ledger's journal.")

    class Meta:
        ordering = ("-number",)

    def __str__(self) -> str:
        return f"{self.number} {self.action}"
