import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0002_leases'),
        ('django_celery_beat', '0019_alter_periodictasks_options'),
        ('ingestion', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='ScheduleTick',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('due_at', models.DateTimeField()),
                ('claimed_at', models.DateTimeField(auto_now_add=True)),
                ('run', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='ticks', to='catalog.run')),
                ('schedule', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='ticks', to='django_celery_beat.periodictask')),
            ],
            options={
                'ordering': ['-due_at'],
                'constraints': [models.UniqueConstraint(fields=('schedule', 'due_at'), name='scheduletick_is_claimed_once')],
            },
        ),
    ]
