from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0022_order_rules")]

    operations = [
        migrations.AlterField(
            model_name="offer",
            name="reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("seller", "its seller decided so"),
                    ("platform", "the platform decided so"),
                    ("miner_left", "its miner is not there"),
                    ("miner_draining", "its miner finishes its work and takes no more"),
                    ("device_gone", "its miner no longer has one of the devices"),
                    ("device_taken", "one of the devices is in another listed offer"),
                    ("hardware_changed", "the devices are no longer of the model that was listed"),
                    ("hardware_doubted", "its hardware did not prove to be what it claims"),
                    ("kinds_gone", "its miner no longer runs all of these kinds"),
                ],
                help_text="Why it is not listed.",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="offertransition",
            name="reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("seller", "its seller decided so"),
                    ("platform", "the platform decided so"),
                    ("miner_left", "its miner is not there"),
                    ("miner_draining", "its miner finishes its work and takes no more"),
                    ("device_gone", "its miner no longer has one of the devices"),
                    ("device_taken", "one of the devices is in another listed offer"),
                    ("hardware_changed", "the devices are no longer of the model that was listed"),
                    ("hardware_doubted", "its hardware did not prove to be what it claims"),
                    ("kinds_gone", "its miner no longer runs all of these kinds"),
                ],
                max_length=20,
            ),
        ),
    ]
