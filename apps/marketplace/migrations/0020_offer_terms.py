from django.db import migrations, models

import aitbc.core.fields


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0002_rules")]
    operations = [
        migrations.AddField(model_name="offer", name="max_seconds", field=models.PositiveIntegerField(null=True)),
        migrations.AddField(model_name="offer", name="min_seconds", field=models.PositiveIntegerField(null=True)),
        migrations.AddField(
            model_name="offer",
            name="reserved_discount_bps",
            field=models.PositiveSmallIntegerField(help_text="Null: not sold in advance.", null=True),
        ),
        migrations.AddField(
            model_name="offer",
            name="spot_price",
            field=aitbc.core.fields.AmountField(
                decimal_places=0,
                help_text="Least bid per device second; null: not sold as spot.",
                max_digits=38,
                null=True,
            ),
        ),
    ]
