from aitbc.core.sqlcipher import command, conversion

Command = command.of(conversion.generate_key)
