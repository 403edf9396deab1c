from aitbc.core.sqlcipher import command, conversion

Command = command.of(conversion.encrypt, "--dry-run")
