from aitbc.core.sqlcipher import command, conversion

Command = command.of(conversion.decrypt, "--dry-run")
