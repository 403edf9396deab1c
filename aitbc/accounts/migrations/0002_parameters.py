from django.db import migrations


class Migration(migrations.Migration):
    """The SQL of jobs and payments reads parameters by name."""

    dependencies = [("accounts", "0001_initial")]
    operations = [
        migrations.RunSQL(
            """CREATE FUNCTION parameter_value(p_name text) RETURNS bigint LANGUAGE sql STABLE AS $$
                 SELECT value::bigint FROM accounts_parameter WHERE name = p_name $$""",
            "DROP FUNCTION parameter_value(text)",
        )
    ]
