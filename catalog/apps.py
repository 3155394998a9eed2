from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "catalog"

    def ready(self) -> None:
        from catalog import logins, publishing

        publishing.connect()
        logins.connect()
