from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "aitbc.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from aitbc.accounts import audit, keys, parameters
        from aitbc.core import ports

        audit.connect()
        ports.subscribe("seed", parameters.seed)
        ports.provide("auth.key", keys.find_principal)
        ports.provide("auth.user", keys.find_user)
