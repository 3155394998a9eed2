from django.apps import AppConfig


class IngestionConfig(AppConfig):
    name = "ingestion"

    def ready(self) -> None:
        from catalog.stores import history_wanted
        from ingestion import drain

        history_wanted.connect(drain.on_history_wanted, dispatch_uid="ingestion.drain")
